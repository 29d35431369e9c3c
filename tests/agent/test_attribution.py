"""Device ids of the kubelet, and processes, matched with GPUs and pods."""

from pathlib import Path

import pytest

from agent.builders import a_gpu, a_slice, uuid_of
from stokehold.agent.attribution import (
    MPS_SERVER,
    Owners,
    PodRef,
    ProcessOwner,
    Relation,
    match_owners,
    users_of,
)
from stokehold.agent.pod_resources import Allocation
from stokehold.agent.processes import ProcessTable
from stokehold.agent.readings import Cause, Missing, ProcessReading

SLICE = a_slice(9)
GPUS = (a_gpu(0), a_gpu(1, mig_mode=1, instances=(SLICE,)))
POD = PodRef("ns", "pod", "main")
UID = "0f8fad5b-d9cb-469f-a165-70867728950e"


@pytest.mark.parametrize(
    ("resource", "device_id", "uuid"),
    [
        ("nvidia.com/gpu", uuid_of(0), uuid_of(0)),
        ("nvidia.com/gpu.shared", f"{uuid_of(0)}::3", uuid_of(0)),
        ("nvidia.com/mig-1g.10gb", SLICE.uuid, SLICE.uuid),
        ("nvidia.com/mig-1g.10gb.shared", f"{SLICE.uuid}::0", SLICE.uuid),
        ("nvidia.com/gpu", f"MIG-{uuid_of(1)}/9/0", SLICE.uuid),
        ("nvidia.com/gpu", "nvidia0", uuid_of(0)),
        ("nvidia.com/gpu", "nvidia0/vgpu1", uuid_of(0)),
        ("nvidia.com/gpu", "nvidia1/gi9", SLICE.uuid),
        ("nvidia.com/gpu", "nvidia1/gi9/vgpu0", SLICE.uuid),
        ("gpu.nvidia.com", "gpu-0", uuid_of(0)),
    ],
)
def test_every_way_to_name_a_device_finds_it(resource: str, device_id: str, uuid: str):
    owners = match_owners((Allocation("ns", "pod", "main", resource, device_id),), GPUS)

    assert owners == Owners({uuid: (POD,)})


def test_a_device_that_fits_no_gpu_is_named_and_other_devices_are_not_gpus():
    allocations = (
        Allocation("ns", "pod", "main", "nvidia.com/gpu", uuid_of(7)),
        Allocation("ns", "pod", "main", "gpu.nvidia.com", "gpu-1-mig-19-0-1"),
        Allocation("ns", "pod", "main", "intel.com/sriov", "0000:3b:02.1"),
    )

    assert match_owners(allocations, GPUS) == Owners(
        {}, ("ns/pod: GPU-00000007-aaaa-bbbb-cccc-000000000000", "ns/pod: gpu-1-mig-19-0-1")
    )


def test_a_shared_gpu_has_all_its_owners():
    allocations = tuple(Allocation("ns", name, "main", "nvidia.com/gpu", f"{uuid_of(0)}::{name}") for name in "01")

    owners = match_owners(allocations, GPUS)

    assert isinstance(owners, Owners)
    assert [pod.name for pod in owners.by_device[uuid_of(0)]] == ["0", "1"]


def test_an_answer_that_is_missing_stays_missing():
    missing = Missing(Cause.FAILED, "no")

    assert match_owners(missing, GPUS) is missing


@pytest.mark.parametrize(
    ("owner", "kind", "relation"),
    [
        (ProcessOwner("python", "u", "ns", "pod"), "compute", Relation.OWNER),
        (ProcessOwner("python", "u", "ns", "other"), "compute", Relation.FOREIGN),
        (ProcessOwner("python", "u"), "compute", Relation.UNCLEAR),
        (ProcessOwner("python"), "compute", Relation.FOREIGN),
        (ProcessOwner("Xorg"), "graphics", Relation.OWNER),
        (ProcessOwner(MPS_SERVER), "compute", Relation.OWNER),
    ],
)
def test_a_process_stands_to_the_gpu_as_its_pod_does(owner: ProcessOwner, kind: str, relation: Relation):
    (user,) = users_of((ProcessReading(1, kind),), (POD,), {1: owner})

    assert user.relation is relation


@pytest.mark.parametrize(
    "path",
    [
        f"11:memory:/kubepods/burstable/pod{UID}/{'a' * 64}",
        f"0::/kubepods.slice/kubepods-pod{UID.replace('-', '_')}.slice/cri-containerd-{'a' * 64}.scope",
        f"0::/../../kubepods-besteffort-pod{UID.replace('-', '_')}.slice/crio-{'a' * 64}.scope",
        f"0::/kubepods/pod{UID}",
    ],
)
def test_the_pod_of_a_process_is_read_from_any_cgroup_path(tmp_path: Path, path: str):
    table = a_table(tmp_path, {17: path})
    (tmp_path / "logs" / f"team-a_x-0_{UID}").mkdir()

    assert table.owners_of([17, 18]) == {17: ProcessOwner("py (thon) x", UID, "team-a", "x-0")}


def test_a_process_whose_name_is_no_text_is_attributed_all_the_same(tmp_path: Path):
    table = a_table(tmp_path, {17: f"0::/kubepods/pod{UID}/x"})
    cut = "训练进程名".encode()[:14]  # the kernel keeps 15 bytes of a name, whatever they are
    (tmp_path / "proc" / "17" / "stat").write_bytes(b"17 (" + cut + b") S " + b"0 " * 18 + b"1 0\n")

    (owner,) = table.owners_of([17]).values()

    assert owner.pod_uid == UID
    assert owner.command.startswith("训练进程")


def test_a_pid_that_another_process_got_is_looked_up_anew(tmp_path: Path):
    table = a_table(tmp_path, {17: f"0::/kubepods/pod{UID}/x"})
    table.owners_of([17])

    a_table(tmp_path, {17: "0::/system.slice/ssh.service"}, started=2)
    assert table.owners_of([17])[17].pod_uid == ""


def test_a_name_with_two_uids_has_none(tmp_path: Path):
    table = a_table(tmp_path, {})
    for name in ("ns_x-0_u1", "ns_x-0_u2", "ns_y_u3"):
        (tmp_path / "logs" / name).mkdir()

    assert table.pod_uids() == {("ns", "y"): "u3"}


def test_without_a_log_directory_no_pod_has_a_name(tmp_path: Path):
    assert ProcessTable(tmp_path / "no", tmp_path / "no").pod_uids() == {}


def a_table(root: Path, cgroups: dict[int, str], started: int = 1) -> ProcessTable:
    (root / "logs").mkdir(exist_ok=True)
    for pid, path in cgroups.items():
        directory = root / "proc" / str(pid)
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "stat").write_text(f"{pid} (py (thon) x) S {'0 ' * 18}{started} 0\n")
        (directory / "cgroup").write_text(f"{path}\n")
    return ProcessTable(root / "proc", root / "logs")
