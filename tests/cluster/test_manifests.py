"""The worker that is created: what its user wrote, and what every worker is given beside it."""

from typing import Any

from builders import a_job
from stokehold.cluster import manifests
from stokehold.model.actions import AdmitJob, Placement
from stokehold.model.taints import Taint

BURST = Taint("stokehold.dev/burst", "", "NoSchedule")


def a_worker(index: int = 0, nodes: tuple[str, ...] = ("n1",), **spec: Any) -> dict[str, Any]:
    placement = Placement("cloud", "h100", "on-demand", "nvidia.com/gpu", nodes, (BURST,))
    job = a_job("llama", numNodes=len(nodes), **spec)
    return manifests.worker(AdmitJob(job, 2, 1, placement, tuple(range(len(nodes))), ""), index)


def main_of(pod: dict[str, Any]) -> dict[str, Any]:
    (main,) = (container for container in pod["spec"]["containers"] if container["name"] == "main")
    return dict(main)


def variables(pod: dict[str, Any]) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in main_of(pod)["env"]}


def test_workers_of_a_gang_find_their_lead_and_know_their_rank():
    pods = [a_worker(index, ("n1", "n2"), gpusPerNode=8) for index in range(2)]

    service = manifests.service(a_job("llama", numNodes=2))["metadata"]["name"]
    for index, pod in enumerate(pods):
        env = variables(pod)
        assert env["PET_NODE_RANK"] == env["RANK"] == str(index)
        assert env["PET_NNODES"] == env["WORLD_SIZE"] == "2"
        assert env["PET_NPROC_PER_NODE"] == "8"
        assert env["MASTER_ADDR"] == env["PET_MASTER_ADDR"] == f"{pods[0]['spec']['hostname']}.{service}.team-a.svc"
        assert pod["spec"]["subdomain"] == service
    assert pods[0]["spec"]["hostname"] != pods[1]["spec"]["hostname"]


def test_worker_that_is_alone_gets_no_more_variables_than_it_needs():
    assert variables(a_worker(gpusPerNode=8)) == {
        "PET_NPROC_PER_NODE": "8",
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": "29500",
        "WORLD_SIZE": "1",
        "RANK": "0",
    }


def test_token_of_the_api_server_is_given_to_those_who_name_their_account_alone():
    def mounts(**pod: Any) -> Any:
        return a_worker(podTemplate={"spec": pod})["spec"].get("automountServiceAccountToken")

    assert mounts() is False
    assert mounts(serviceAccountName="trainer") is None
    assert mounts(automountServiceAccountToken=True) is True


def test_shared_memory_is_large_unless_the_user_has_mounted_it():
    pod = a_worker()
    assert {"name": "stokehold-shm", "mountPath": "/dev/shm"} in main_of(pod)["volumeMounts"]
    assert {"name": "stokehold-shm", "emptyDir": {"medium": "Memory"}} in pod["spec"]["volumes"]

    own = a_worker(
        volumes=[{"name": "mine", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}}],
        volumeMounts=[{"name": "mine", "mountPath": "/dev/shm"}],
    )
    assert [mount["name"] for mount in main_of(own)["volumeMounts"]] == ["mine"]


def test_checkpoints_are_mounted_named_and_given_time_to_be_written():
    pod = a_worker(
        checkpoint={"claimName": "ckpt", "path": "/ckpt", "gracePeriod": "90s"}, args=["--to=$(CHECKPOINT_DIR)"]
    )

    assert {"name": "stokehold-checkpoint", "mountPath": "/ckpt"} in main_of(pod)["volumeMounts"]
    claim = {"name": "stokehold-checkpoint", "persistentVolumeClaim": {"claimName": "ckpt"}}
    assert claim in pod["spec"]["volumes"]
    assert variables(pod)["CHECKPOINT_DIR"] == "/ckpt"
    assert variables(pod)["STOKEHOLD_ATTEMPT"] == "2"
    assert pod["spec"]["terminationGracePeriodSeconds"] == 90


def test_variables_of_the_user_win_and_may_use_ours():
    pod = a_worker(env=[{"name": "MASTER_PORT", "value": "1"}, {"name": "LOG", "value": "/log/$(RANK)"}])

    names = [entry["name"] for entry in main_of(pod)["env"]]
    assert variables(pod)["MASTER_PORT"] == "1"
    assert len(names) == len(set(names))
    assert names.index("RANK") < names.index("LOG")


def test_gpus_are_the_main_containers_and_hidden_from_all_others():
    template = {
        "spec": {"containers": [{"name": "helper", "image": "x"}], "initContainers": [{"name": "first", "image": "x"}]}
    }
    pod = a_worker(gpusPerNode=4, podTemplate=template)
    others = [*pod["spec"]["initContainers"], *(c for c in pod["spec"]["containers"] if c["name"] != "main")]

    assert main_of(pod)["resources"]["limits"] == {"nvidia.com/gpu": "4"}
    assert [container["env"] for container in others] == [[{"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"}]] * 2
    without = variables(a_worker(gpusPerNode=0))
    assert (without["NVIDIA_VISIBLE_DEVICES"], without["CUDA_VISIBLE_DEVICES"]) == ("void", "")


def test_the_node_is_required_beside_the_users_own_wishes_and_its_taints_are_tolerated():
    wish = {"key": "disk", "operator": "In", "values": ["ssd"]}
    affinity = {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [wish]}]}
        }
    }
    spec = a_worker(podTemplate={"spec": {"affinity": affinity}})["spec"]

    (term,) = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert term["matchExpressions"] == [wish]
    assert term["matchFields"] == [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]
    silent = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"]
    assert sorted(toleration["key"] for toleration in spec["tolerations"]) == [*silent, BURST.key]
    assert "nodeName" not in spec
