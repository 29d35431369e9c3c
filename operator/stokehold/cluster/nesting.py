"""JSON that is nested without end: the API server takes 10,000 levels, every parser here gives up after 1,000. Pure.

Our kinds leave parts of a pod's template open, so anybody who may write them may write such an object. It is one that
cannot be read, like others; it must not keep us from reading those beside it.
"""

import re
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")

DEEPEST = 64
"""No object of ours has a reason to go deeper; what is made of it must not be too deep either."""
KEPT = 4 * DEEPEST
"""How deep JSON still is after it was pruned: deep enough to be told from an object that may be read."""

_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)


def decode(body: bytes | msgspec.Raw, form: type[T]) -> T:
    """Decode what the API server has sent, without what lies deeper than KEPT levels where that is too much."""
    try:
        return msgspec.json.decode(body, type=form)
    except RecursionError:
        return msgspec.json.decode(pruned(bytes(body)), type=form)


def pruned(body: bytes) -> bytes:
    """Return the JSON with null in place of whatever lies deeper than KEPT levels."""
    pieces, copied, depth, cut_at = [], 0, 0, 0
    for token in _TOKEN.finditer(body):
        if token[0] in (b"{", b"["):
            depth += 1
            if depth == KEPT + 1:
                cut_at = token.start()
        elif token[0] in (b"}", b"]"):
            depth -= 1
            if depth == KEPT:
                pieces += [body[copied:cut_at], b"null"]
                copied = token.end()
    return b"".join([*pieces, body[copied:]])


def is_nested_deeper(value: Any, most: int) -> bool:
    """Whether the value has more levels than that; without recursion, for it may have thousands."""
    level = [value]
    for _ in range(most + 1):
        level = [
            part
            for one in level
            if isinstance(one, dict | list)
            for part in (one.values() if isinstance(one, dict) else one)
        ]
        if not level:
            return False
    return any(isinstance(one, dict | list) for one in level)
