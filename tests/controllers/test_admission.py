"""What the webhook says of objects, on values."""

from dataclasses import replace
from types import MappingProxyType
from typing import Any

from builders import NOW, a_queue
from stokehold.api.v1alpha1.dev_workspace import DevWorkspace
from stokehold.api.v1alpha1.gpu_queue import GPUQueue
from stokehold.api.v1alpha1.training_job import TrainingJob
from stokehold.controllers.admission import Surroundings, judge
from stokehold.model.snapshot import Namespace

NOTHING: MappingProxyType[str, Any] = MappingProxyType({})


def a_manifest(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "stokehold.dev/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": "job", "namespace": "team-a"},
        "spec": {"image": "x", **spec},
    }


def around(*queues: Any, namespace: str = "team-a") -> Surroundings:
    known = {namespace: Namespace(namespace, {"kubernetes.io/metadata.name": namespace})}
    return Surroundings(lambda: NOW, {queue.name: queue for queue in queues}, known, NOTHING)


def serving(namespace: str, name: str) -> Any:
    return a_queue(name, namespaces={"matchLabels": {"kubernetes.io/metadata.name": namespace}})


def test_a_queue_of_others_is_refused_and_the_own_ones_are_named():
    verdict = judge(TrainingJob, a_manifest(queueName="b"), around(serving("team-b", "b"), serving("team-a", "a")))

    assert verdict.refusals == ("spec.queueName: GPUQueue b does not serve namespace team-a; allowed: a",)


def test_a_namespace_that_the_cache_has_not_seen_yet_is_not_held_against_its_job():
    verdict = judge(TrainingJob, a_manifest(queueName="b"), around(serving("team-b", "b"), namespace="other"))

    assert verdict.refusals == ()


def test_what_does_not_exist_yet_is_a_warning():
    verdict = judge(TrainingJob, a_manifest(queueName="later", priorityClassName="later"), around())

    assert verdict.refusals == ()
    assert [text.split(":")[0] for text in verdict.warnings] == ["spec.priorityClassName", "spec.queueName"]


def test_a_broken_object_is_refused_by_the_paths_that_its_author_wrote():
    verdict = judge(TrainingJob, a_manifest(numNodes=0, gpusPerNode="8"), around())

    assert [text.split(":")[0] for text in verdict.refusals] == ["spec.numNodes", "spec.gpusPerNode"]


def test_what_was_stored_under_an_older_rule_may_be_changed_elsewhere_and_not_made_worse():
    stored = a_manifest(numNodes=0)

    assert judge(TrainingJob, a_manifest(numNodes=0, suspend=True), around(), stored).refusals == ()
    (worse,) = judge(TrainingJob, a_manifest(numNodes=-1), around(), stored).refusals
    (other,) = judge(TrainingJob, a_manifest(numNodes=0, gpusPerNode=-1), around(), stored).refusals
    assert (worse.split(":")[0], other.split(":")[0]) == ("spec.numNodes", "spec.gpusPerNode")


def test_field_of_newer_crds_is_no_fault_and_the_rules_hold_beside_it():
    newer = a_manifest(queueName="b", shiny={"new": True})

    (refusal,) = judge(TrainingJob, newer, around(serving("team-b", "b"), serving("team-a", "a"))).refusals

    assert refusal.startswith("spec.queueName")
    assert judge(TrainingJob, a_manifest(shiny=1), around()).refusals == ()


def test_the_status_is_the_operators_own():
    manifest = {**a_manifest(), "kind": "GPUQueue", "spec": {}, "status": {"nonsense": 1}}

    assert judge(GPUQueue, manifest, around()).refusals == ()


def test_a_signal_that_is_not_measured_yet_is_a_warning():
    manifest = {
        **a_manifest(idle={"signals": {"gpu": {}, "jupyter": {}, "io": {}, "terminal": {}}}),
        "kind": "DevWorkspace",
    }

    verdict = judge(DevWorkspace, manifest, around())

    assert verdict.refusals == ()
    assert [text.split(" ")[0] for text in verdict.warnings] == ["spec.idle.signals.io:", "spec.idle.signals.terminal:"]
    assert all("never stopped for being idle" in text for text in verdict.warnings)


def test_exemption_that_reaches_too_far_is_refused_unless_it_is_there_already():
    exempt = {"until": "2099-01-01T00:00:00Z", "reason": "mine"}
    spec = {"image": "x", "idle": {"exempt": exempt}}
    far = {**a_manifest(), "kind": "DevWorkspace", "spec": spec}
    near = {**far, "spec": {"image": "x", "idle": {"exempt": {**exempt, "until": "2026-01-31T12:00:00Z"}}}}
    there = replace(around(), now=lambda: NOW)

    (refusal,) = judge(DevWorkspace, far, there).refusals
    assert refusal.startswith("spec.idle.exempt.until: 2099-01-01 is too far ahead")
    assert "at most 30 days from now are allowed" in refusal
    assert judge(DevWorkspace, far, there, near).refusals == (refusal,)
    assert judge(DevWorkspace, near, there).refusals == ()
    assert judge(DevWorkspace, {**far, "spec": {**spec, "running": False}}, there, far).refusals == ()
