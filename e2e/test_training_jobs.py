"""Training, as a data scientist sees it."""

from e2e.user import User

from kit.jobs import training_job, wait_until

WITHIN = 120


def test_job_with_one_gpu_runs_to_its_end(user: User):
    user.cluster.needs(nodes=1)
    user.run("hello", gpusPerNode=1)

    status = user.wait_phase("hello", "Succeeded", within=WITHIN)

    assert status["attempt"] == 1
    assert status["usage"]["gpuSeconds"] >= 1
    assert len(status["placement"]["nodes"]) == 1
    assert user.conditions("hello")["Finished"] == "True"
    assert "Succeeded" in user.stokehold("why", "tj/hello")


def test_gang_starts_whole_and_finds_its_leader(user: User):
    user.cluster.needs(nodes=2)
    user.run("gang", numNodes=2, gpusPerNode=1, seconds=20)

    user.wait_phase("gang", "Running", within=WITHIN)

    pods = sorted(user.pods("gang"), key=lambda pod: pod["metadata"]["name"])
    environments = [{e["name"]: e.get("value") for e in pod["spec"]["containers"][0]["env"]} for pod in pods]
    assert [e["PET_NODE_RANK"] for e in environments] == ["0", "1"]
    assert environments[0]["MASTER_ADDR"] == environments[1]["MASTER_ADDR"]
    address = str(environments[0]["MASTER_ADDR"])
    host, service = address.split(".")[:2]
    assert pods[0]["spec"]["hostname"] == host
    assert user.kubectl("get", "service", service, "-o", "jsonpath={.spec.clusterIP}") == "None"


def test_job_that_no_node_can_host_says_what_to_change(user: User):
    user.cluster.needs(nodes=1)
    user.run("huge", gpusPerNode=64)

    queue = user.wait_reason("huge", "NoMatchingFlavor", within=WITHIN)

    assert user.pods("huge") == []
    assert "spec.gpusPerNode" in queue["nextStep"]
    assert queue["message"] in user.stokehold("why", "tj/huge")


def test_failing_program_is_restarted_and_then_failed_with_its_exit_code(user: User):
    user.cluster.needs(nodes=1)
    user.run("broken", exit_code=3, seconds=1, gpusPerNode=1, failurePolicy={"maxRestarts": 1})

    status = user.wait_phase("broken", "Failed", within=WITHIN)

    assert status["restarts"] == 1
    assert status["lastFailure"]["exitCode"] == 3
    assert {"WorkerFailed", "RestartsExhausted"} & set(user.events("broken"))


def test_suspended_job_gives_its_gpus_back_and_goes_on_later(user: User):
    user.cluster.needs(nodes=1)
    user.run("pausing", gpusPerNode=1, seconds=5, suspend=True)
    user.wait_phase("pausing", "Suspended", within=WITHIN)
    assert user.pods("pausing") == []

    user.patch("pausing", {"suspend": False})

    user.wait_phase("pausing", "Succeeded", within=WITHIN)


def test_waiting_job_starts_when_it_is_edited_to_fit(user: User):
    user.cluster.needs(nodes=1)
    user.run("edited", gpusPerNode=64)
    user.wait_reason("edited", "NoMatchingFlavor", within=WITHIN)

    user.patch("edited", {"gpusPerNode": 1})

    user.wait_phase("edited", "Succeeded", within=WITHIN)


def test_deleted_job_leaves_nothing(user: User):
    user.cluster.needs(nodes=2)
    user.run("leaving", numNodes=2, gpusPerNode=1, seconds=600, checkpoint={"path": "/ckpt", "gracePeriod": "1s"})
    user.wait_phase("leaving", "Running", within=WITHIN)

    user.kubectl("delete", "tj", "leaving", "--wait=false")

    wait_until(lambda: not user.left_over(), WITHIN, lambda: str(user.left_over()))


def test_mistake_is_refused_with_the_field_and_what_is_allowed(user: User):
    words = user.refused(training_job("wrong", numNodes=0))

    assert "spec.numNodes" in words
    assert "greater than or equal to 1" in words


def test_the_kinds_explain_themselves(user: User):
    assert "rack" in user.explain("trainingjobs.spec.topology")
