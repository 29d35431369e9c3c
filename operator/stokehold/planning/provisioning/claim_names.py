"""Names of claims: the same for the same wish, so that asking again finds what was asked for before."""

from hashlib import sha256

from stokehold.model.names import stem
from stokehold.model.snapshot import Job

LONGEST_STEM = 36


def claim_name(job: Job, attempt: int, index: int) -> str:
    """The claim for one node of one attempt of a job; it will be the name of its node too."""
    digest = sha256(job.uid.encode()).hexdigest()[:8]
    return f"{stem(job.name, LONGEST_STEM)}-{digest}-{attempt}-{index}"


def warm_name(pool: str, number: int) -> str:
    """The claim for one node that is kept warm."""
    return f"{stem(pool, LONGEST_STEM)}-warm-{number}"
