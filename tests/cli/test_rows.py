"""What the commands make of objects: rows, order, words. No cluster."""

import json
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from stokehold.api.v1alpha1.dev_workspace import DevWorkspace
from stokehold.api.v1alpha1.inference_pool import InferencePool
from stokehold.api.v1alpha1.training_job import TrainingJob
from stokehold.cli import access, objects
from stokehold.cli.get import item_of
from stokehold.cli.main import main
from stokehold.cli.queue import _order, waiting_of, waits
from stokehold.cli.tables import Column, plain, show, span, to_json
from stokehold.cli.top import PoolUse
from stokehold.cli.why import sentences, why
from stokehold.cluster import errors
from stokehold.observability import logs

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)


def a_job(name: str = "train", *, minute: int = 0, **status: object) -> TrainingJob:
    return TrainingJob.model_validate(
        {
            "kind": "TrainingJob",
            "metadata": {"name": name, "namespace": "ns", "creationTimestamp": f"2026-11-01T10:{minute:02}:00Z"},
            "spec": {"image": "i", "numNodes": 4, "gpusPerNode": 8},
            "status": status,
        }
    )


def a_workspace(*, running: bool = True, **status: object) -> DevWorkspace:
    metadata = {"name": "nb", "namespace": "ns", "creationTimestamp": "2026-11-01T11:00:00Z"}
    spec = {"image": "i", "gpus": 2, "running": running}
    return DevWorkspace.model_validate({"kind": "DevWorkspace", "metadata": metadata, "spec": spec, "status": status})


def a_pool(**status: object) -> InferencePool:
    metadata = {"name": "chat", "namespace": "ns", "creationTimestamp": "2026-11-01T11:00:00Z"}
    spec = {"image": "i", "gpusPerReplica": 2, "replicas": {"min": 1, "max": 5}}
    return InferencePool.model_validate({"kind": "InferencePool", "metadata": metadata, "spec": spec, "status": status})


def queued(reason: str = "WaitingForCapacity", position: int | None = None) -> dict[str, object]:
    return {"reason": reason, "message": "too little is free", "nextStep": "Wait.", "position": position}


def test_gpus_of_a_job_are_those_of_all_its_workers():
    placement = {"pool": "p", "gpuType": "h100", "nodes": ["a", "a", "b", "b"]}
    item = item_of(a_job(phase="Running", placement=placement))

    assert (item.gpus, item.gpu_type, item.nodes) == (32, "h100", ("a", "b"))


def test_gpus_of_a_pool_follow_the_replicas_that_are_wanted():
    assert item_of(a_pool()).gpus == 2
    assert item_of(a_pool(desiredReplicas=4)).gpus == 8


def test_what_the_operator_has_not_seen_is_pending_and_waits():
    found = a_job()

    assert item_of(found).phase == "Pending"
    assert waits(found)
    assert waiting_of(found).reason == "PendingEvaluation"


@pytest.mark.parametrize(
    "found",
    [
        a_job(phase="Running"),
        a_job(phase="Succeeded"),
        a_job(phase="Suspended"),
        a_workspace(running=False),
        a_workspace(phase="Active"),
        a_pool(phase="Ready"),
    ],
    ids=lambda found: f"{found.kind}-{found.status.phase}",
)
def test_what_runs_has_ended_or_is_held_back_does_not_wait(found):
    assert not waits(found)


def test_queue_is_in_the_order_of_places_and_what_is_not_in_it_comes_last():
    found = [
        a_job("old-but-misconfigured", minute=1, phase="Pending", queue=queued("Misconfigured")),
        a_job("second", minute=2, phase="Pending", queue=queued(position=2)),
        a_job("first", minute=3, phase="Pending", queue=queued(position=1)),
    ]
    rows = map(waiting_of, found)

    assert [row.name for row in sorted(rows, key=_order)] == ["first", "second", "old-but-misconfigured"]


def test_a_job_that_lost_its_gpus_waits_since_then_and_a_new_one_since_it_was_made():
    lost = {"type": "QuotaReserved", "status": "False", "lastTransitionTime": "2026-11-01T11:30:00Z"}

    again = a_job(phase="Restarting", startTime="2026-11-01T10:05:00Z", conditions=[lost])
    fresh = a_job(phase="Pending", conditions=[lost])

    assert waiting_of(again).waiting_since == datetime(2026, 11, 1, 11, 30, tzinfo=UTC)
    assert waiting_of(fresh).waiting_since == datetime(2026, 11, 1, 10, 0, tzinfo=UTC)


def test_a_stopped_workspace_says_how_to_start_it_and_a_warned_one_how_to_keep_it():
    stopped = why(a_workspace(running=False, phase="Stopped", stopReason="Idle", stoppedAt="2026-11-01T11:00:00Z"))
    warned = why(a_workspace(phase="Warned", stopAt="2026-11-01T13:00:00Z"))

    assert (stopped.reason, stopped.next_step) == ("Idle", "stokehold resume nb starts it again.")
    assert "since 2026-11-01 11:00 UTC" in stopped.message
    assert "13:00 UTC" in warned.message
    assert "snooze nb" in warned.next_step


def test_a_pool_tells_its_replicas_and_its_last_decision():
    decision = {"replicas": 5, "reason": "CappedByMax", "message": "7 would be right"}

    answer = why(a_pool(phase="Scaling", readyReplicas=3, desiredReplicas=5, decisions=[decision]))

    assert (answer.reason, answer.message) == ("CappedByMax", "3 of 5 replicas are ready; 7 would be right")


def test_trouble_comes_before_the_last_decision():
    ready = {
        "type": "Ready",
        "status": "False",
        "reason": "NotEnoughReplicasReady",
        "message": "1 of 5; exceeded quota",
    }
    fresh = {"type": "MetricsFresh", "status": "False", "reason": "Missing", "message": "no answer"}
    decisions = [{"replicas": 5, "reason": "LoadRose", "message": "40 in all"}]

    short = why(a_pool(phase="Degraded", decisions=decisions, conditions=[fresh, ready]))
    blind = why(a_pool(phase="Ready", decisions=decisions, conditions=[fresh, {**ready, "status": "True"}]))
    well = why(a_pool(phase="RollingOut", decisions=decisions, conditions=[{**ready, "status": "True"}]))
    starting = why(a_workspace(phase="Starting", conditions=[{**ready, "reason": "Starting", "message": "not ready"}]))

    assert (short.reason, short.message) == ("NotEnoughReplicasReady", "1 of 5; exceeded quota")
    assert blind.reason == "Missing"
    assert (well.reason, well.message) == ("LoadRose", "1 of 5; exceeded quota; 40 in all")
    assert (starting.reason, starting.message) == ("Starting", "not ready")


def test_each_kind_that_waits_gives_reason_place_and_next_step():
    told = {"queue": {**queued(position=3), "details": {"requested": 32, "available": 8, "unit": "GPUs"}}}

    for found in (
        a_job(phase="Pending", **told),
        a_workspace(phase="Pending", **told),
        a_pool(phase="Pending", **told),
    ):
        lines = list(sentences(found, NOW))

        assert lines[0].endswith("is Pending: WaitingForCapacity")
        assert "  needs 32 GPUs, 8 can be had now" in lines
        assert "  place 3 in the queue (default)" in lines
        assert "  next  Wait." in lines


def test_one_is_told_as_one():
    details = {"requested": 1, "unit": "GPUs per node"}

    lines = sentences(a_job(phase="Pending", queue={**queued(position=1), "details": details}), NOW)

    assert "  needs 1 GPU per node, 0 can be had now" in lines


@pytest.mark.parametrize("word", ["tj", "TJ", "trainingjob", "trainingjobs", "trainingjobs.stokehold.dev"])
def test_kinds_answer_to_all_their_names(word: str):
    assert objects.kind_and_name(f"{word}/x", DevWorkspace) == (TrainingJob, "x")


@pytest.mark.parametrize("what", ["pod/x", "tj/", "", "/x/y/z/"])
def test_unknown_kinds_and_empty_names_are_refused(what: str):
    with pytest.raises(click.UsageError):
        objects.kind_and_name(what, TrainingJob)


@pytest.mark.parametrize(
    ("body", "missing"),
    [
        (b"404 page not found\n", True),
        (b'{"reason": "NotFound", "message": "the server could not find the requested resource"}', True),
        (b'{"reason": "NotFound", "message": "devworkspaces.stokehold.dev \\"nb\\" not found"}', False),
    ],
)
def test_a_missing_kind_is_told_from_a_missing_object(body: bytes, *, missing: bool):
    with pytest.raises(click.ClickException) as told, access.told("read it", "no such workspace"):
        raise errors.from_reply(404, body)

    assert ("CRDs are not installed" in told.value.message) is missing
    assert (told.value.message == "no such workspace") is not missing


@pytest.mark.parametrize(
    ("status", "words"), [(401, "log in again"), (403, "you may not read it"), (422, "refuses to"), (503, "try again")]
)
def test_each_refusal_says_what_to_do(status: int, words: str):
    with pytest.raises(click.ClickException, match=words), access.told("read it"):
        raise errors.from_reply(status, b'{"reason": "X", "message": "because"}')


@pytest.mark.parametrize(
    ("passed", "text"),
    [
        (timedelta(seconds=-3), "0s"),
        (timedelta(seconds=45), "45s"),
        (timedelta(minutes=12, seconds=59), "12m"),
        (timedelta(hours=3, minutes=20), "3h20m"),
        (timedelta(hours=24), "24h"),
        (timedelta(days=5, hours=7), "5d"),
    ],
)
def test_spans_are_short(passed: timedelta, text: str):
    assert span(passed) == text


def test_nothing_that_others_wrote_reaches_the_terminal_as_an_escape(capsys: pytest.CaptureFixture[str]):
    hostile = "\x1b]0;owned\x07 [bold red]x[/] \r\nnext"

    show([hostile], [Column("NAME", lambda row: row)], "table", "nothing")

    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert "[bold red]x[/]" in printed
    assert len(printed.splitlines()) == 2
    assert plain(None) == plain("") == "-"


def test_a_pipe_gets_whole_lines(capsys: pytest.CaptureFixture[str]):
    message = "word " * 200

    show([message], [Column("MESSAGE", lambda row: row)], "table", "nothing")

    assert message.strip() in capsys.readouterr().out


def test_nothing_is_said_to_people_and_an_empty_list_to_scripts(capsys: pytest.CaptureFixture[str]):
    show([], [Column("NAME", str)], "table", "nothing in ns")
    show([], [Column("NAME", str)], "json", "nothing in ns")

    out, err = capsys.readouterr()
    assert json.loads(out) == {"items": []}
    assert err == "nothing in ns\n"


def test_keys_for_scripts_are_camel_case_and_unknown_is_null():
    row = PoolUse("p", "h100", "on-prem", 1, 8, 8, 0, None, None, None)

    assert to_json(row)["gpuType"] == "h100"
    assert to_json(row)["active"] is None
    assert len(to_json(row)) == len(fields(PoolUse))


@pytest.mark.parametrize("command", ["run", "get"])
@pytest.mark.parametrize("kubeconfig", [b"\xff\x00", b"[]", b"", b"{"])
def test_a_kubeconfig_that_is_none_is_told_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, kubeconfig: bytes
):
    monkeypatch.setattr(logs, "configure", lambda **_: None)  # what other tests log is not for this one's output
    path = tmp_path / "kubeconfig"
    path.write_bytes(kubeconfig)

    ended = CliRunner().invoke(main, [command, "--kubeconfig", str(path)])

    assert (ended.exit_code, type(ended.exception)) == (1, SystemExit)
    assert "Error: kubeconfig" in ended.output


@pytest.mark.parametrize("namespace", ["a/b", "..", "Team", "a b"])
def test_what_cannot_be_a_namespace_is_no_part_of_a_path(namespace: str):
    ended = CliRunner().invoke(main, ["get", "-n", namespace, "--kubeconfig", "/nowhere"])

    assert ended.exit_code == 2
    assert "cannot be the name of a namespace" in ended.output
