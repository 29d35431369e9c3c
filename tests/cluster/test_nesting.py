"""Objects nested without end: each is unreadable by itself, and nobody stops reading the others."""

import json
from typing import Any

import msgspec
import pytest

from stokehold.cluster import wire
from stokehold.cluster.nesting import DEEPEST, KEPT, decode, is_nested_deeper, pruned
from stokehold.cluster.own_kinds import read_workspace
from stokehold.cluster.reading.pods import read_pod


def nested(levels: int) -> str:
    return '{"a":' * levels + '"}]\\"{"' + "}" * levels


def a_workspace(levels: int) -> wire.OwnKind:
    container = f'{{"name": "main", "livenessProbe": {nested(levels)}}}'
    spec = f'{{"image": "i", "podTemplate": {{"spec": {{"containers": [{container}]}}}}}}'
    body = f'{{"metadata": {{"name": "x", "uid": "u"}}, "spec": {spec}, "status": {{}}}}'
    return decode(body.encode(), wire.OwnKind)


def test_what_lies_too_deep_is_left_out_and_the_rest_is_as_it_was():
    body = f'[{nested(9000)}, {{"b": [1, "]]}}"]}}, {nested(3)}]'

    deep, beside, shallow = json.loads(pruned(body.encode()))

    assert is_nested_deeper(deep, KEPT - 3)
    assert not is_nested_deeper(deep, KEPT)
    assert beside == {"b": [1, "]]}"]}
    assert shallow == json.loads(nested(3))


@pytest.mark.parametrize("levels", [DEEPEST, 990, 9000])
def test_an_object_that_is_nested_too_deep_cannot_be_read_and_says_so(levels: int):
    with pytest.raises(ValueError, match=f"nested more than {DEEPEST} levels deep"):
        read_workspace(a_workspace(levels))


def test_an_object_of_ordinary_depth_is_read_whole():
    template: Any = read_workspace(a_workspace(20)).spec.pod_template

    assert template["spec"]["containers"][0]["livenessProbe"] == json.loads(nested(20))


def test_annotations_nested_too_deep_hide_no_pod_and_no_workspace():
    deep = '{"x":' + "[" * 100_000
    keys = {f"stokehold.dev/{name}": deep for name in ("gang", "stopped", "finished")}
    container = {"resources": {"requests": {"nvidia.com/gpu": "8"}}}
    pod = msgspec.convert(
        {"metadata": {"name": "x", "annotations": keys}, "spec": {"nodeName": "n1", "containers": [container]}},
        wire.Pod,
    )
    own = msgspec.convert({"metadata": {"name": "x", "annotations": keys}, "spec": {"image": "i"}}, wire.OwnKind)

    assert read_pod(pod).requests["nvidia.com/gpu"] == 8
    assert read_workspace(own).stop_record is None
