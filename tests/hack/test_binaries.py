from pathlib import Path

import pytest

from hack import binaries, go


def test_every_tool_has_its_pins_without_a_proxy_host() -> None:
    for tool in binaries.TOOLS:
        go_mod = (tool.folder / "go.mod").read_text()

        assert tool.version().startswith("v"), tool.name
        assert "://" not in go_mod, tool.name
        assert all(package in go_mod for package in tool.commands.values()), tool.name


def test_default_tools_leave_out_those_on_demand() -> None:
    names = [tool.name for tool in binaries.choose(())]

    assert "kubernetes" in names
    assert "kueue" not in names


def test_unknown_tool_is_refused_by_name() -> None:
    with pytest.raises(binaries.BuildError, match="kubelet"):
        binaries.choose(("kubelet",))


def test_kubernetes_is_stamped_with_its_version() -> None:
    (kubernetes,) = binaries.choose(("kubernetes",))

    assert f"version.gitVersion={kubernetes.version()}" in kubernetes.ldflags()


def test_another_go_means_another_build() -> None:
    (etcd,) = binaries.choose(("etcd",))

    assert binaries.digest(etcd, "1.26.1") != binaries.digest(etcd, "1.26.2")
    assert binaries.digest(etcd, "1.26.1") == binaries.digest(etcd, "1.26.1")


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"STOKEHOLD_CACHE": "/data/cache"}, "/data/cache"),
        ({"XDG_CACHE_HOME": "/data"}, "/data/stokehold"),
    ],
)
def test_cache_is_where_the_user_wants_it(environment: dict[str, str], folder: str) -> None:
    assert binaries.cache_folder(environment) == Path(folder)


@pytest.mark.parametrize(("found", "is_same"), [("1.36.0", True), ("v1.36.9", True), ("1.35.2", False), (None, False)])
def test_assets_must_be_of_the_pinned_minor_version(found: str | None, *, is_same: bool) -> None:
    assert binaries.same_minor(found, "v1.36.2") is is_same


def test_assets_of_another_version_are_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program = tmp_path / "etcd"
    program.write_text("#!/bin/sh\necho etcd Version: 3.4.1\n")
    program.chmod(0o755)
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))
    (etcd,) = binaries.choose(("etcd",))

    assert binaries.from_assets(etcd) == {}
    assert "3.4.1 in KUBEBUILDER_ASSETS" in capsys.readouterr().out


def test_assets_of_the_pinned_version_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (etcd,) = binaries.choose(("etcd",))
    program = tmp_path / "etcd"
    program.write_text(f"#!/bin/sh\necho etcd Version: {etcd.version()[1:]}\n")
    program.chmod(0o755)
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))

    assert binaries.from_assets(etcd) == {"etcd": program}


@pytest.mark.parametrize(
    ("output", "is_wanted"),
    [
        ("go version go1.26.8 linux/amd64", True),
        ("go version go1.26 linux/arm64", True),
        ("go version go1.27.0 linux/amd64", False),
        ("go version go1.2.6 linux/amd64", False),
    ],
)
def test_only_go_1_26_builds(output: str, *, is_wanted: bool) -> None:
    version = go.parse_version(output)

    assert version is not None
    assert go.is_wanted(version) is is_wanted
