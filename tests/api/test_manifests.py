"""What the API server itself takes and refuses; nothing of ours but the CRDs is involved."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from hack.cluster import LocalCluster
from pydantic import ValidationError

from api.manifests import BAD, GOOD, Bad, Manifest
from stokehold.api.v1alpha1 import KINDS

pytestmark = pytest.mark.cluster

Answers = dict[str, str]


@pytest.fixture(scope="module")
def refusals(cluster: LocalCluster) -> Answers:
    """What the API server says to each bad manifest; the empty string if it took it."""
    with ThreadPoolExecutor(4) as pool:
        said = pool.map(lambda bad: _dry_run(cluster, bad.manifest()), BAD)
        return dict(zip((f"{bad.kind}: {bad.sentence}" for bad in BAD), said, strict=True))


def _dry_run(cluster: LocalCluster, manifest: Manifest) -> str:
    try:
        cluster.kubectl("apply", "--dry-run=server", "-f", "-", input=json.dumps(manifest))
    except RuntimeError as error:
        return str(error)
    return ""


def test_there_are_bad_manifests_of_every_kind():
    assert len(BAD) >= 60
    assert {bad.kind for bad in BAD} == set(GOOD)


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: f"{bad.kind}: {bad.sentence}")
def test_bad_manifest_is_refused_by_name(bad: Bad, refusals: Answers):
    said = refusals[f"{bad.kind}: {bad.sentence}"]

    assert said, "it was accepted"
    assert [word for word in bad.words if word not in said] == [], said


@pytest.mark.parametrize("bad", [bad for bad in BAD if "unknown field" not in bad.words], ids=lambda bad: bad.sentence)
def test_bad_manifest_is_refused_by_our_models_too(bad: Bad):
    if bad.kind == "TrainingJob" and "podTemplate" in bad.change.get("spec", {}):
        return  # the guard of the template is the CRD's alone
    if bad.change.get("metadata"):
        return  # so is the length of the name

    with pytest.raises(ValidationError):
        _model(bad.kind).parse_strict(bad.manifest())


@pytest.mark.parametrize("kind", GOOD)
def test_good_manifest_comes_back_unchanged(kind: str, cluster: LocalCluster):
    stored = json.loads(
        cluster.kubectl("create", "--dry-run=server", "-o", "json", "-f", "-", input=json.dumps(GOOD[kind]))
    )

    assert _lost(GOOD[kind]["spec"], stored.get("spec", {})) == []
    assert _model(kind).parse_strict(GOOD[kind]).to_dict() == GOOD[kind]


def test_explain_reads_like_documentation(cluster: LocalCluster):
    told = " ".join(cluster.kubectl("explain", "tj.spec.topology").split())

    assert "How close together the nodes of the gang are" in told
    assert "The job waits while no domain has room for the whole gang" in told


def test_short_names_columns_and_scale_are_served(cluster: LocalCluster):
    resources = cluster.kubectl("api-resources", "--api-group=stokehold.dev", "--no-headers")

    shorts = {line.split()[1] for line in resources.splitlines()}
    assert shorts == {"tj", "gpool", "gws", "gq", "gnp", "gnc", "gn"}
    assert "inferencepools/scale" in cluster.kubectl("get", "--raw", "/apis/stokehold.dev/v1alpha1")


def _lost(given: object, got: object, path: str = "spec") -> list[str]:
    if isinstance(given, dict) and isinstance(got, dict):
        return [lost for key, value in given.items() for lost in _lost(value, got.get(key), f"{path}.{key}")]
    return [] if given == got else [f"{path}: {given!r} became {got!r}"]


def _model(kind: str):
    return next(model for model in KINDS if model.__name__ == kind)
