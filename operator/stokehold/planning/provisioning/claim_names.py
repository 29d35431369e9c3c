"""Names of claims: the same for the same wish, so that asking again finds what was asked for before."""

from collections.abc import Iterator
from hashlib import sha256
from itertools import count

from stokehold.model.names import stem
from stokehold.model.snapshot import Job

LONGEST_STEM = 36


def claim_names(job: Job, attempt: int) -> Iterator[str]:
    """The claims for the nodes of one attempt of a job, in their order; they will be the names of the nodes too."""
    digest = sha256(job.uid.encode()).hexdigest()[:8]
    return (f"{stem(job.name, LONGEST_STEM)}-{digest}-{attempt}-{index}" for index in count())


def warm_name(pool: str, number: int) -> str:
    """The claim for one node that is kept warm."""
    return f"{stem(pool, LONGEST_STEM)}-warm-{number}"
