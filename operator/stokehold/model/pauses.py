"""How long to wait before something is tried again that has failed before. Pure."""

from datetime import timedelta

MOST_DOUBLINGS = 16
"""Far beyond any `longest`; keeps the product small however often something has failed."""


def doubled(first: timedelta, times: int, longest: timedelta) -> timedelta:
    """`first`, doubled so many times, up to `longest`."""
    return min(first * (1 << min(max(times, 0), MOST_DOUBLINGS)), longest)
