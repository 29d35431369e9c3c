"""The first scenario: jobs are queued, placed, restarted, and always say why they wait."""

from hack.demo.stage import Stage, expect


def pools_are_declared_and_jobs_submitted(stage: Stage) -> str:
    """The platform team declares three pools, a data scientist submits four jobs."""
    stage.open_namespace()
    stage.apply("jobs.yaml")
    return "hello 1 GPU, finetune 2x8, flaky 2x4, impossible 1x16"


def single_gpu_job_runs_to_its_end(stage: Stage) -> str:
    """A one-GPU job runs and ends."""
    status = stage.wait_phase("hello", "Succeeded")
    return f"on {status['placement']['nodes'][0]}, {status['usage']['gpuSeconds']} GPU-seconds"


def gang_starts_whole_in_one_rack(stage: Stage) -> str:
    """Two workers of eight GPUs start together, in one rack."""
    nodes = stage.wait_phase("finetune", "Running")["placement"]["nodes"]
    label = "{.items[*].metadata.labels.topology\\.kubernetes\\.io/rack}"
    racks = set(stage.cluster.kubectl("get", "nodes", *nodes, "-o", f"jsonpath={label}").split())
    expect(len(racks) == 1, f"finetune spreads over racks {racks}")
    return f"{', '.join(nodes)} in rack {racks.pop()}"


def impossible_job_says_so(stage: Stage) -> str:
    """A job that no node can host is told at once, with what to change."""
    stage.wait("a reason", lambda: stage.status("impossible").get("queue"))
    queue = stage.status("impossible")["queue"]
    expect(queue["reason"] == "NoMatchingFlavor", f"the reason is {queue['reason']}")
    expect("gpusPerNode" in queue["nextStep"], f"the next step is {queue['nextStep']}")
    expect(not stage.pods("impossible"), "it has pods")
    return str(queue["message"])


def failed_worker_restarts_the_gang(stage: Stage) -> str:
    """A worker crashes: the whole gang starts again, and the restart is counted."""
    stage.wait_phase("flaky", "Running")
    stage.crash("flaky-1-1")
    stage.wait("attempt 2 runs", lambda: _runs_again(stage), within=40)
    status = stage.status("flaky")
    expect(status["restarts"] == 1, f"restarts are {status['restarts']}")
    return str(status["lastFailure"]["message"])


def large_gang_waits_whole(stage: Stage) -> str:
    """Four workers of eight GPUs, three free nodes: no pod exists, and the reason has numbers."""
    stage.apply("pretrain.yaml")
    stage.wait("a reason", lambda: stage.status("pretrain").get("queue"))
    queue = stage.status("pretrain")["queue"]
    expect(queue["reason"] == "WaitingForCapacity", f"the reason is {queue['reason']}")
    expect(queue["details"] == {"requested": 32, "available": 24, "unit": "GPUs"}, f"details {queue['details']}")
    expect(not stage.pods("pretrain"), "it has pods although it waits")
    return str(queue["message"])


def the_command_line_says_the_same(stage: Stage) -> str:
    """`stokehold why` gives the status' reason and the next step."""
    told = stage.why("pretrain")
    queue = stage.status("pretrain")["queue"]
    expect(queue["reason"] in told and queue["nextStep"] in told, f"it says {told}")
    return told.splitlines()[0]


def fourth_node_starts_all_four_at_once(stage: Stage) -> str:
    """A node appears: all four workers run within five seconds."""
    stage.cluster.add_node("h100", "h100-5")
    took = stage.wait("four workers run", lambda: _running(stage, "pretrain") == 4, within=15)
    expect(took <= 5, f"it took {took:.1f} s")
    return f"after {took:.1f} s"


def killed_operator_is_not_missed(stage: Stage) -> str:
    """The operator is killed and started again: everything runs on."""
    before = {pod["metadata"]["uid"] for pod in stage.pods()}
    stage.operator.kill()
    stage.operator.restart()
    after = {pod["metadata"]["uid"] for pod in stage.pods()}
    expect(before == after, "pods have changed")
    return f"{len(after)} pods untouched"


SCENARIO = (
    pools_are_declared_and_jobs_submitted,
    single_gpu_job_runs_to_its_end,
    gang_starts_whole_in_one_rack,
    impossible_job_says_so,
    failed_worker_restarts_the_gang,
    large_gang_waits_whole,
    the_command_line_says_the_same,
    fourth_node_starts_all_four_at_once,
    killed_operator_is_not_missed,
)


def _running(stage: Stage, job: str) -> int:
    return sum(pod["status"].get("phase") == "Running" for pod in stage.pods(job))


def _runs_again(stage: Stage) -> bool:
    status = stage.status("flaky")
    return bool(status.get("attempt") == 2 and status.get("phase") == "Running")
