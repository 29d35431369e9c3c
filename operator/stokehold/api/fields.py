"""The small types that several kinds share: names, paths, classes of capacity, schedules."""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import Field
from pydantic.alias_generators import to_snake

from stokehold.api.base import Part, Rule

SUBDOMAIN_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
LABEL_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
LABEL_VALUE_PATTERN = r"^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"
LABEL_KEY_PATTERN = (
    r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?"
    r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"
)
PATH_PATTERN = r"^/[^:]*$"
CRON_PATTERN = r"^[0-9A-Za-z*,/-]+( [0-9A-Za-z*,/-]+){4}$"
TIME_ZONE_PATTERN = r"^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+){0,2}$"

CapacityClass = Literal["on-prem", "reserved", "spot", "on-demand"]


def _matching(pattern: str, message: str) -> Rule:
    whole = re.compile(pattern)
    return Rule(message, cel=f"self.matches('{pattern}')", holds=lambda text: whole.fullmatch(text) is not None)


def unique(what: str) -> Rule:
    """Return the rule that no value of a list stands there twice."""
    return Rule(
        f"must not name {what} twice",
        cel="self.all(one, self.exists_one(other, other == one))",
        holds=lambda values: len(set(values)) == len(values),
    )


def unique_by(key: str) -> Rule:
    """Return the rule that no two entries of a list have the same key; the name is of the manifest."""
    attribute = to_snake(key)
    return Rule(
        f"must name each {key} once",
        cel=f"self.all(one, self.exists_one(other, other.{key} == one.{key}))",
        holds=lambda entries: len({getattr(entry, attribute) for entry in entries}) == len(entries),
    )


def exactly_one(names: Sequence[str], message: str) -> Rule:
    """Return the rule that exactly one of the optional members of an object is set; the names are of the manifest."""
    present = ", ".join(f"has(self.{name})" for name in names)

    def holds(part: Part) -> bool:
        fields = type(part).model_fields.items()
        return sum(info.alias in names and getattr(part, name) is not None for name, info in fields) == 1

    return Rule(message, cel=f"[{present}].filter(given, given).size() == 1", holds=holds)


ObjectName = Annotated[
    str,
    Field(min_length=1, max_length=253),
    _matching(
        SUBDOMAIN_PATTERN,
        "must be lower-case letters, digits, '-' and '.', with a letter or digit at both ends",
    ),
]

ShortName = Annotated[
    str,
    Field(min_length=1, max_length=63),
    _matching(
        LABEL_PATTERN,
        "must be lower-case letters, digits and '-', with a letter or digit at both ends",
    ),
]

# Implicit pools take the vendor's label values, which have capitals: NVIDIA-H100-80GB-HBM3.
GpuType = Annotated[
    str,
    Field(min_length=1, max_length=63),
    _matching(
        LABEL_VALUE_PATTERN,
        "must be letters, digits, '-', '_' and '.', with a letter or digit at both ends, such as h100",
    ),
]

GpuTypes = Annotated[tuple[GpuType, ...], Field(max_length=16), unique("a GPU type")]

CapacityClasses = Annotated[tuple[CapacityClass, ...], Field(min_length=1, max_length=4), unique("a capacity class")]

DataClasses = Annotated[tuple[ShortName, ...], Field(max_length=16), unique("a data class")]

LabelKey = Annotated[
    str,
    Field(min_length=1, max_length=253),
    _matching(LABEL_KEY_PATTERN, "must be the key of a label, such as topology.kubernetes.io/zone"),
]

AbsolutePath = Annotated[
    str,
    Field(min_length=1, max_length=1024),
    _matching(PATH_PATTERN, "must be an absolute path, such as /data, without ':'"),
]

Cron = Annotated[
    str,
    Field(max_length=100),
    _matching(
        CRON_PATTERN,
        "must be five fields of cron with one space between them (minute, hour, day, month, weekday), such as"
        " '0 20 * * 1-5'",
    ),
]

TimeZone = Annotated[
    str,
    Field(min_length=1, max_length=64),
    _matching(TIME_ZONE_PATTERN, "must be a time zone of the IANA database, such as Europe/Berlin or UTC"),
]

Image = Annotated[
    str,
    Field(min_length=1, max_length=1024),
    _matching(r"^[^ \t\n]+$", "must be the reference of a container image, without spaces"),
]

Arguments = Annotated[tuple[Annotated[str, Field(max_length=32768)], ...], Field(max_length=512)]

Port = Annotated[int, Field(strict=True, ge=1, le=65535)]

_LABEL_KEY = re.compile(LABEL_KEY_PATTERN)
_LABEL_VALUE = re.compile(LABEL_VALUE_PATTERN)


def _are_labels(labels: Mapping[str, str]) -> bool:
    return all(
        _LABEL_KEY.fullmatch(key) and (not value or _LABEL_VALUE.fullmatch(value)) for key, value in labels.items()
    )


LABELS_RULE = Rule(
    "must map keys of labels, such as example.com/team, to values of letters, digits, '-', '_' and '.'",
    cel=(
        f"self.all(key, key.matches('{LABEL_KEY_PATTERN}')"
        f" && (self[key] == '' || self[key].matches('{LABEL_VALUE_PATTERN}')))"
    ),
    holds=_are_labels,
)
ANNOTATIONS_RULE = Rule(
    "must have keys of annotations, such as example.com/team",
    cel=f"self.all(key, key.matches('{LABEL_KEY_PATTERN}'))",
    holds=lambda annotations: all(map(_LABEL_KEY.fullmatch, annotations)),
)

LabelMap = dict[str, Annotated[str, Field(max_length=63)]]
Labels = Annotated[LabelMap, Field(max_length=32), LABELS_RULE]
SomeLabels = Annotated[LabelMap, Field(min_length=1, max_length=32), LABELS_RULE]
