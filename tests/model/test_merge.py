"""A pod template is laid over the operator's pod by kubectl's rules."""

from copy import deepcopy

from hypothesis import given
from hypothesis import strategies as st

from stokehold.model.merge import strategic_merge


def test_maps_merge_and_values_are_replaced():
    assert strategic_merge({"a": {"x": 1, "y": 2}, "b": 1}, {"a": {"y": 3}, "b": 2}) == {"a": {"x": 1, "y": 3}, "b": 2}


def test_null_removes():
    assert strategic_merge({"a": 1, "b": 2}, {"a": None, "c": None}) == {"b": 2}


def test_containers_with_the_same_name_merge_and_others_are_added():
    base = {"containers": [{"name": "main", "image": "x"}]}

    merged = strategic_merge(base, {"containers": [{"name": "log", "image": "y"}, {"name": "main", "tty": True}]})

    assert merged["containers"] == [{"name": "main", "image": "x", "tty": True}, {"name": "log", "image": "y"}]


def test_environment_of_a_merged_container_merges_by_name():
    base = {"containers": [{"name": "main", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]}]}

    merged = strategic_merge(base, {"containers": [{"name": "main", "env": [{"name": "A", "value": "3"}]}]})

    assert merged["containers"][0]["env"] == [{"name": "A", "value": "3"}, {"name": "B", "value": "2"}]


def test_lists_without_a_merge_key_are_replaced():
    assert strategic_merge({"args": ["a", "b"]}, {"args": ["c"]}) == {"args": ["c"]}


def test_tolerations_are_added_so_that_those_for_gpus_stay():
    gpu, own = {"key": "nvidia.com/gpu"}, {"key": "mine"}

    assert strategic_merge({"tolerations": [gpu]}, {"tolerations": [own, gpu]}) == {"tolerations": [gpu, own]}


def test_entries_without_their_key_replace_the_list():
    assert strategic_merge({"env": [{"name": "A"}]}, {"env": [{"value": "1"}]}) == {"env": [{"value": "1"}]}


values = st.recursive(
    st.integers() | st.text(max_size=3),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3) | st.lists(inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(st.sampled_from(["a", "b", "c", "env", "containers"]), values, max_size=4)


@given(objects, objects)
def test_merge_changes_neither_side_and_twice_is_once(base: dict, patch: dict):
    before = deepcopy((base, patch))

    merged = strategic_merge(base, patch)

    assert (base, patch) == before
    assert strategic_merge(merged, patch) == merged
