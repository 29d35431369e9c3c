"""What the cycle collector of Python may cost: caches of a large cluster take it half a second to walk."""

import gc

YOUNG_OBJECTS = 50_000
"""Allocations between two collections of the young; cycles are rare here, reference counts free nearly all."""


def settle() -> None:
    """Call once the caches are full: what they hold now is never walked again, and full walks become rare.

    Objects that leave the caches are still freed at once; only cycles among those that were there before would stay.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, 50, 50)
