"""What our models make of the manifests, without any server."""

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from api.manifests import BAD, GOOD, Bad, kind_of, members
from stokehold.api.crd import root_schema
from stokehold.api.v1alpha1 import KINDS, TrainingJob

# The metadata is the API server's own business; it looks at it before anybody else.
OURS = [bad for bad in BAD if not bad.says[0].startswith("metadata.")]

FIRST_OF = {manifest["kind"]: manifest for manifest in reversed(GOOD.values())}
STATUS_WORDS = sorted({word for kind in KINDS for word in members(root_schema(kind)["properties"]["status"])})

JOB = {"apiVersion": "stokehold.dev/v1alpha1", "kind": "TrainingJob", "metadata": {"name": "job"}}


def test_every_kind_has_good_manifests_and_bad_ones():
    names = {kind.__name__ for kind in KINDS}

    assert {manifest["kind"] for manifest in GOOD.values()} == names
    assert {bad.manifest["kind"] for bad in BAD} == names
    assert len(BAD) >= 60
    assert len({bad.case for bad in BAD}) == len(BAD)


@pytest.mark.parametrize("name", GOOD)
def test_good_manifest_is_printed_as_it_was_written(name: str):
    manifest = GOOD[name]

    assert kind_of(manifest).parse_strict(manifest).to_dict() == manifest


@pytest.mark.parametrize("name", GOOD)
def test_fields_of_a_newer_version_are_passed_over_at_any_depth(name: str):
    manifest = GOOD[name]

    newer = _with_unknown_fields(copy.deepcopy(manifest))

    assert kind_of(manifest).read(newer).to_dict()["metadata"] == manifest["metadata"]
    with pytest.raises(ValidationError):
        kind_of(manifest).parse_strict(newer)


@pytest.mark.parametrize("bad", OURS, ids=str)
def test_bad_manifest_is_refused_by_our_models_too(bad: Bad):
    with pytest.raises(ValidationError):
        kind_of(bad.manifest).parse_strict(bad.manifest)


def test_status_that_cannot_be_understood_does_not_hide_the_object():
    stored = {**JOB, "spec": {"image": "train:1"}, "status": {"attempt": "first", "restarts": 2, "phase": "Dreaming"}}

    job = TrainingJob.read(stored)

    assert job.status.attempt is None
    assert job.status.restarts == 2
    assert job.status.phase == "Dreaming"


def test_only_the_strange_part_of_a_status_counts_as_absent():
    finished = {"type": "Finished", "status": "True", "reason": "Succeeded"}
    conditions = [
        finished,
        {"type": "Dreaming", "status": 7},
        {"status": "True"},
        {"type": "Idle", "status": "False", "lastTransitionTime": "yesterday"},
    ]
    usage = {"cost": "1e3", "gpuSeconds": 9}
    stored = {**JOB, "spec": {"image": "train:1"}, "status": {"conditions": conditions, "usage": usage, "queue": []}}

    status = TrainingJob.read(stored).status

    assert [condition.type for condition in status.conditions] == ["Finished", "Idle"]
    assert (status.usage.cost, status.usage.gpu_seconds, status.queue) == (None, 9, None)
    assert stored["status"]["conditions"] == conditions


@pytest.mark.parametrize("status", [None, "done", ["done"], {"conditions": 3}, {"conditions": [[]]}])
def test_status_of_another_shape_counts_as_absent(status: object):
    assert TrainingJob.read({**JOB, "spec": {"image": "train:1"}, "status": status}).status.conditions == ()


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(STATUS_WORDS) | st.text(), inner, max_size=4)
        ),
        max_leaves=12,
    )
)
def test_no_status_whatsoever_hides_the_object(status: object):
    for kind in KINDS:
        manifest = FIRST_OF[kind.__name__]

        assert kind.read({**manifest, "status": status}).to_dict()["metadata"] == manifest["metadata"]


def test_spec_that_is_invalid_is_an_error_even_when_read():
    with pytest.raises(ValidationError):
        TrainingJob.read({**JOB, "spec": {"image": "train:1", "numNodes": -1}, "status": {"attempt": "first"}})


def test_defaults_are_there_but_not_printed():
    job = TrainingJob.parse_strict({**JOB, "spec": {"image": "train:1"}})

    assert (job.spec.num_nodes, job.spec.gpus_per_node, job.spec.failure_policy.max_restarts) == (1, 1, 3)
    assert job.to_dict()["spec"] == {"image": "train:1"}


def test_objects_do_not_change():
    job = TrainingJob.parse_strict({**JOB, "spec": {"image": "train:1"}})

    with pytest.raises(ValidationError):
        job.spec.num_nodes = 2


def _with_unknown_fields(value: object) -> object:
    if isinstance(value, dict) and not {"matchLabels", "limits"} & value.keys():
        return {"addedLater": {"a": 1}} | {
            key: inner if key in OPEN else _with_unknown_fields(inner) for key, inner in value.items()
        }
    return [_with_unknown_fields(inner) for inner in value] if isinstance(value, list) else value


# Maps and objects of Kubernetes, in which every key has a meaning.
OPEN = frozenset(
    {
        *("metadata", "podTemplate", "nodeSelector", "labels", "requests"),
        *("persistentVolumeClaim", "emptyDir", "downwardAPI", "image"),
    }
)
