"""Names of children are valid, stable, and never the same for two parents."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stokehold.api.names import NAME_MAX_LENGTH
from stokehold.model.names import hostname, label_value, pod_name, service_name, stem

DNS_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
LABEL_VALUE = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
LAST_ATTEMPT, LAST_INDEX = 99_999, 4_095


def children(name: str) -> list[str]:
    return [
        pod_name(name, LAST_ATTEMPT, LAST_INDEX),
        hostname(name, LAST_INDEX),
        service_name(name),
    ]


@pytest.mark.parametrize("name", ["llama", "train-2", "a" * 51])
def test_name_that_fits_stays_as_it_is(name: str):
    assert stem(name) == label_value(name) == name


@pytest.mark.parametrize(
    "name",
    ["llama-3.1-8b", "7b-sft", "7", "a.b", "a" * 60, "a" * 63, "a" * 64, "a" * NAME_MAX_LENGTH, "0." + "-x" * 40 + "9"],
)
def test_children_of_odd_names_are_valid(name: str):
    for child in children(name):
        assert DNS_LABEL.fullmatch(child), child
        assert len(child) <= 63


def test_twins_of_62_characters_that_differ_in_the_last_letter_stay_apart():
    one, other = "a" * 61 + "b", "a" * 61 + "c"

    assert not set(children(one)) & set(children(other))


def test_dot_and_dash_stay_apart():
    assert stem("a.b") != stem("a-b")


def test_names_are_the_same_after_a_restart():
    assert stem("llama-3.1-8b") == "llama-3-1-8b-" + "7b633509"


def test_every_worker_of_every_attempt_has_its_own_name():
    every = {pod_name(name, attempt, index) for name in ("a", "a-1") for attempt in (1, 11) for index in (1, 11)}

    assert len(every) == 8


segment = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?", fullmatch=True)
job_names = st.lists(segment, min_size=1, max_size=10).map(".".join).filter(lambda n: len(n) <= NAME_MAX_LENGTH)


@given(st.lists(job_names, min_size=2, max_size=6, unique=True))
def test_names_are_valid_and_distinct(parents: list[str]):
    for name in parents:
        assert all(DNS_LABEL.fullmatch(child) and len(child) <= 63 for child in children(name))
        assert LABEL_VALUE.fullmatch(label_value(name))
        assert len(label_value(name)) <= 63
    for of in (stem, label_value, service_name):
        assert len({of(name) for name in parents}) == len(parents)
