"""The real agent program over the fake NVML, steered while it runs."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner
from grpclib import Status

from agent.processes import NODE, World, eventually, steadily
from kit.nvml import driver
from kit.nvml.driver import uuid_of
from kit.pod_resources import with_gpus
from stokehold.agent.run import agent_command

POD_A = "aaaaaaaa-0000-0000-0000-000000000000"
POD_B = "bbbbbbbb-0000-0000-0000-000000000000"
# For tests with more transitions than may be written at once.
WRITES_ALL = ("--heartbeat", "300ms")


def test_a_busy_gpu_is_active_and_a_quiet_one_is_quiet_only_after_its_window(world: World):
    world.nvml[0].utilization = 84
    world.start_agent()

    eventually(lambda: world.api.activity(0) == "Active")
    assert world.api.activity(1) == "Unknown"
    assert "seen for" in world.api.evidence(1)
    eventually(lambda: world.api.activity(1) == "Quiet")

    world.nvml[0].utilization = 0
    eventually(lambda: world.api.activity(0) == "Quiet")
    world.nvml[1].peak = 37
    eventually(lambda: world.api.activity(1) == "Active")
    assert "37 %" in world.api.evidence(1)


def test_a_hung_driver_makes_all_unknown_and_the_agent_goes_on(world: World):
    agent = world.start_agent()
    eventually(lambda: world.api.activity(0) == "Quiet")

    world.nvml.hang("nvmlDeviceGetPowerUsage", gpu=1)
    eventually(lambda: world.api.activity(0) == "Unknown")
    assert f"nvml call nvmlDeviceGetPowerUsage on {uuid_of(1)} did not return in 1 s" in world.api.evidence(0)
    assert world.api.status()["phase"] == "Unknown"
    assert json.loads(agent.get("/healthz"))["degraded"]
    assert agent.metrics()["stokehold_agent_nvml_responsive"] == 0
    assert not any(name.startswith("DCGM_FI_DEV_GPU_UTIL{") for name in agent.metrics())

    world.nvml.heal()
    eventually(lambda: world.api.activity(0) == "Quiet", seconds=30)
    assert agent.process.poll() is None


def test_one_lost_gpu_is_unhealthy_and_unknown_and_the_others_are_not(world: World):
    world.start_agent()
    eventually(lambda: world.api.activity(1) == "Quiet")

    world.nvml.fail("*", driver.GPU_IS_LOST, gpu=1)
    eventually(lambda: world.api.activity(1) == "Unknown")

    assert world.api.gpu(1)["uuid"] == uuid_of(1)
    assert world.api.gpu(1)["health"]["state"] == "Unhealthy"
    assert world.api.activity(0) == "Quiet"
    assert world.api.status()["phase"] == "Degraded"


def test_a_gpu_that_is_lost_at_the_start_is_reported_without_its_name(world: World):
    world.nvml.fail("nvmlDeviceGetHandleByIndex_v2", driver.NO_PERMISSION, gpu=0)
    world.start_agent()

    eventually(lambda: world.api.activity(0) == "Unknown")
    eventually(lambda: world.api.activity(1) == "Quiet")
    assert "nvmlDeviceGetHandleByIndex" in world.api.evidence(0)


def test_mig_devices_are_unknown_and_never_zero_per_cent(world: World):
    world.nvml[0].split(9, 11)
    world.kubelet.give(with_gpus("team-a", "slice", _mig(9), resource="nvidia.com/mig-1g.10gb"))
    agent = world.start_agent()

    eventually(lambda: world.api.activity(1) == "Quiet")
    devices = world.api.gpu(0)["migDevices"]
    assert [d["activity"]["state"] for d in devices] == ["Unknown", "Unknown"]
    assert [d["profile"] for d in devices] == ["1g.10gb", "1g.10gb"]
    assert devices[0]["owners"][0]["pod"] == "slice"
    assert world.api.activity(0) == "Unknown"
    assert "MIG" in world.api.evidence(0)
    assert not any("UTIL" in name and uuid_of(0) in name for name in agent.metrics())

    world.nvml.fail("nvmlDeviceGetMigMode", driver.UNKNOWN_ERROR, gpu=0)
    eventually(lambda: "nvmlDeviceGetMigMode" in world.api.evidence(0))
    assert [d["activity"]["state"] for d in world.api.gpu(0)["migDevices"]] == ["Unknown", "Unknown"]


def test_a_gpu_taken_out_of_mig_is_judged_as_a_whole_again(world: World):
    world.nvml[0].split(9)
    world.start_agent()
    eventually(lambda: world.api.gpu(0).get("migDevices"))

    world.nvml[0].merge()
    eventually(lambda: world.api.activity(0) == "Quiet")
    assert world.api.gpu(0)["migDevices"] == []


def test_an_error_or_an_absurd_number_of_the_one_signal_is_unknown(world: World):
    world.start_agent(*WRITES_ALL)
    for result, evidence in ((driver.UNKNOWN_ERROR, "Unknown Error"), (driver.NO_PERMISSION, "Permission")):
        eventually(lambda: world.api.activity(0) == "Quiet")
        world.nvml.fail("nvmlDeviceGetSamples", result)
        eventually(lambda: world.api.activity(0) == "Unknown")
        assert "nvmlDeviceGetSamples" in world.api.evidence(0)
        assert evidence in world.api.evidence(0)
        world.nvml.heal()

    eventually(lambda: world.api.activity(0) == "Quiet")
    world.nvml[0].utilization = 0xFFFFFFFF
    eventually(lambda: world.api.activity(0) == "Unknown")
    assert "cannot be true" in world.api.evidence(0)


def test_a_driver_upgrade_finds_no_open_session_and_the_next_agent_is_well_without_a_crash(world: World):
    agent = world.start_agent()
    eventually(lambda: world.api.activity(0) == "Quiet")
    assert len(world.nvml.sessions) == 1

    assert agent.stop() == 0
    assert world.nvml.sessions == ()
    assert world.api.activity(0) == "Unknown"
    assert "the agent was stopped" in world.api.evidence(0)

    with world.nvml.unloaded("590.10"):
        successor = world.start_agent()
        eventually(lambda: "Driver Not Loaded" in _ready(world)["message"])
        steadily(lambda: successor.process.poll() is None, seconds=1)
    eventually(lambda: world.api.activity(0) == "Quiet", seconds=30)
    assert world.api.status()["driverVersion"] == "590.10"

    before = len(world.api.writes)
    world.start_agent()  # whose pod was deleted by force: it runs on beside the one that follows
    eventually(lambda: len(world.api.writes) > before + 1 and world.api.activity(0) == "Quiet")
    assert successor.stop() == 0
    assert world.api.activity(0) == "Quiet"
    assert "Traceback" not in successor.log.read_text()


def test_a_driver_that_goes_away_under_the_agent_is_unknown_until_it_is_back(world: World):
    agent = world.start_agent()
    eventually(lambda: world.api.activity(0) == "Quiet")

    with world.nvml.unloaded("590.10"):
        eventually(lambda: world.api.activity(0) == "Unknown")
        assert "Driver Not Loaded" in world.api.evidence(0)
    eventually(lambda: world.api.activity(0) == "Quiet", seconds=30)
    assert agent.process.poll() is None


def test_nvml_is_closed_even_when_it_hangs_at_sigterm(world: World):
    agent = world.start_agent()
    eventually(lambda: world.api.activity(0) == "Quiet")
    world.nvml.hang("*")
    eventually(lambda: world.api.activity(0) == "Unknown")

    assert agent.stop() == 0
    assert world.nvml.sessions == ()


def test_nvml_dies_with_an_agent_that_is_killed(world: World):
    agent = world.start_agent()
    eventually(lambda: len(world.nvml.sessions) == 1)
    world.nvml.hang("nvmlDeviceGetPowerUsage")
    eventually(lambda: world.api.activity(0) == "Unknown" or world.nvml.sessions)

    os.kill(agent.process.pid, signal.SIGKILL)
    agent.process.wait(5)
    eventually(lambda: world.nvml.sessions == (), seconds=3)


def test_owners_come_back_after_the_socket_is_made_anew_even_if_the_old_server_lives(world: World):
    world.kubelet.give(with_gpus("team-a", "first", uuid_of(0)))
    world.start_agent()
    eventually(lambda: world.api.owners(0) == ["first"])

    for name in ("second", "third"):
        world.kubelet.give(with_gpus("team-a", name, uuid_of(0)))
        world.kubelet.restart(leaving_the_old_one=name == "third")
        eventually(lambda name=name: world.api.owners(0) == [name])


def test_without_the_kubelets_word_nothing_is_quiet_and_nobody_is_the_owner(world: World):
    notebook = with_gpus("team-a", "notebook", uuid_of(0))
    world.kubelet.give(notebook)
    world.start_agent(*WRITES_ALL)

    for trouble in ("did not return", "RESOURCE_EXHAUSTED", "Error parsing", "named no pod", "No such file"):
        eventually(lambda: world.api.activity(0) == "Quiet")
        assert world.api.owners(0) == ["notebook"]
        match trouble:
            case "did not return":
                world.kubelet.hangs = True
            case "RESOURCE_EXHAUSTED":
                world.kubelet.error = Status.RESOURCE_EXHAUSTED
            case "Error parsing":
                world.kubelet.garbage = b"\x0a\x04\x0a\x02\xff\xfe"
            case "named no pod":
                world.kubelet.containers = ()
            case _:
                world.kubelet.stop()
        eventually(lambda: world.api.activity(0) == "Unknown")
        assert world.api.owners(0) == []
        assert trouble in world.api.evidence(0)
        world.kubelet.hangs, world.kubelet.error, world.kubelet.garbage = False, None, None
        world.kubelet.give(notebook)
    world.kubelet.start()
    eventually(lambda: world.api.activity(0) == "Quiet")


def test_anothers_process_makes_the_owners_signal_unknown(world: World):
    world.kubelet.give(with_gpus("team-a", "owner", uuid_of(0)))
    world.log_pod("team-a", "owner", POD_A)
    world.log_pod("team-b", "intruder", POD_B)
    world.run_process(4711, POD_A)
    world.run_process(4712, POD_B)
    world.nvml[0].run((4711, 1 << 30))
    agent = world.start_agent()
    eventually(lambda: world.api.activity(0) == "Quiet")

    world.nvml[0].run((4712, 1 << 30))
    world.nvml[1].run((4712, 1 << 30))
    world.nvml[1].utilization = 95
    eventually(lambda: world.api.activity(0) == "Unknown")
    assert "team-b/intruder" in world.api.evidence(0)
    eventually(lambda: world.api.activity(1) == "Active")
    assert "team-b/intruder" in world.api.evidence(1)
    series = [name for name in agent.metrics() if name.startswith("stokehold_gpu_foreign_processes{")]
    assert len(series) == 2
    assert all('pod="intruder"' in name for name in series)


def test_metrics_bear_dcgms_names_and_labels(world: World):
    world.kubelet.give(with_gpus("team-a", "notebook", uuid_of(0)))
    world.nvml[0].utilization, world.nvml[0].memory_used = 84, 1024 * driver.MIB
    agent = world.start_agent()
    eventually(lambda: world.api.activity(0) == "Active")

    metrics = agent.metrics()
    (labels,) = [n for n in metrics if n.startswith("DCGM_FI_DEV_GPU_UTIL{") and 'gpu="0"' in n]
    assert metrics[labels] == 84
    for label in ('device="nvidia0"', 'namespace="team-a"', 'pod="notebook"', f'Hostname="{NODE}"'):
        assert label in labels
    assert metrics[labels.replace("GPU_UTIL", "FB_USED")] == 1024
    assert metrics[labels.replace("GPU_UTIL", "POWER_USAGE")] == 70


def test_writes_are_few_and_only_to_its_own_node(world: World):
    world.start_agent()
    eventually(lambda: world.api.activity(0) == "Quiet")
    before = len(world.api.writes)

    for power in (70_000, 71_000, 69_000, 75_000):
        world.nvml[0].power_mw = power
        steadily(lambda: len(world.api.writes) == before, seconds=0.3)
    assert {path.split("/gpunodes/")[1] for path in world.api.paths} == {NODE, f"{NODE}/status"}


def test_an_api_server_that_refuses_delays_nothing_and_is_asked_again_later(world: World):
    world.api.refusing = 503
    agent = world.start_agent("--heartbeat", "1s")
    eventually(lambda: agent.metrics().get("stokehold_agent_cycles_total", 0) > 10)
    assert 1 <= agent.metrics()["stokehold_agent_failed_writes_total"] <= 3

    world.api.refusing = 0
    eventually(lambda: world.api.activity(0) == "Quiet", seconds=20)


def test_an_old_driver_lists_processes_by_its_own_call(world: World, tmp_path: Path):
    (tmp_path / "old").mkdir()
    world.nvml.shared_object = driver.build(tmp_path / "old", old_driver=True)
    world.log_pod("team-b", "intruder", POD_B)
    world.run_process(4712, POD_B)
    world.nvml[1].run((4712, 1 << 30))
    agent = world.start_agent()

    eventually(lambda: world.api.activity(0) == "Quiet")
    assert any("stokehold_gpu_foreign_processes{" in name for name in agent.metrics())


def test_probe_says_what_nvml_gives(world: World):
    world.nvml[1].split(9)
    world.nvml.fail("nvmlDeviceGetTotalEnergyConsumption", driver.NOT_SUPPORTED, gpu=0)

    report = _probe(world)

    whole, parent, _ = report["devices"]
    assert whole["uuid"] == uuid_of(0)
    assert whole["activityIsKnown"]
    assert whole["signals"]["energy"] == "absent: nvmlDeviceGetTotalEnergyConsumption: Not Supported"
    assert parent["mig"]
    assert not parent["activityIsKnown"]
    assert all(call["milliseconds"] >= 0 for call in report["calls"])


def test_probe_goes_on_after_a_call_that_hangs(world: World):
    world.nvml.hang("nvmlDeviceGetTemperature", gpu=0)

    report = _probe(world)

    assert report["hung"] == ["nvmlDeviceGetTemperature on gpu 0"]
    assert report["devices"][0]["signals"]["temperature"] == "hung"
    assert report["devices"][1]["signals"]["temperature"] == "ok"


def test_probe_without_a_driver_says_so_and_fails(world: World):
    world.nvml.fail("*", driver.DRIVER_NOT_LOADED)

    report = _probe(world, code=1)

    assert not report["open"]
    assert "Driver Not Loaded" in report["error"]


def test_a_window_of_less_than_two_looks_is_refused():
    refused = CliRunner().invoke(agent_command, ["--node-name", NODE, "--window", "20s", "--interval", "15s"])

    assert refused.exit_code == 2
    assert "two intervals" in refused.output


def test_the_agent_does_without_the_heavy_packages_of_the_operator():
    heavy = {"kopf", "kubernetes", "numpy", "pydantic", "pynvml"}

    code = f"import stokehold.agent.run, sys; print(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=60)  # noqa: S603 - ours

    assert done.stdout.decode().strip() == "[]"


def _probe(world: World, code: int = 0) -> dict:
    done = subprocess.run(
        [sys.executable, "-m", "stokehold.agent", "probe", "--timeout", "1s"],
        env={**os.environ, **world.nvml.environment},
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == code, done.stderr
    report: dict = json.loads(done.stdout)
    return report


def _ready(world: World) -> dict:
    return next((c for c in world.api.status()["conditions"] if c["type"] == "AgentReady"), {"message": ""})


def _mig(instance: int, minor: int = 0) -> str:
    return f"MIG-{instance:08d}-{minor:04d}-0000-0000-000000000000"
