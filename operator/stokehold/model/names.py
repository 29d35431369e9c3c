"""Names of the children of an object: stable, valid, and never the same for two parents.

A parent's name may be 200 characters with dots; a hostname, a Service or a label value may not. What fits stays
as it is; anything else is cut and gets a hash of the whole name, so that twins which differ in the last letter
stay apart and a restart finds the same names again.
"""

from hashlib import sha256

LONGEST_LABEL = 63
ROOM_FOR_SUFFIX = 12
"""-ATTEMPT-INDEX with five and four digits and the dashes."""


def stem(name: str, longest: int = LONGEST_LABEL - ROOM_FOR_SUFFIX) -> str:
    """A DNS label (RFC 1035: starts with a letter, no dots) of at most `longest` characters for this name."""
    plain = name.replace(".", "-")
    if not plain[0].isalpha():
        plain = f"j-{plain}"
    if plain == name and len(plain) <= longest:
        return plain
    digest = sha256(name.encode()).hexdigest()[:8]
    return f"{plain[: longest - len(digest) - 1].rstrip('-')}-{digest}"


def pod_name(job: str, attempt: int, index: int) -> str:
    """The pod of one worker in one attempt."""
    return f"{stem(job)}-{attempt}-{index}"


def hostname(job: str, index: int) -> str:
    """The worker's host name: the same in every attempt."""
    return f"{stem(job)}-{index}"


def service_name(job: str) -> str:
    """The headless Service of a gang; the suffix keeps it apart from a Service that the user named like the job."""
    return f"{stem(job)}-gang"


def workspace_name(workspace: str) -> str:
    """The StatefulSet and the Service of a workspace."""
    return stem(workspace)


def volume_claim_name(workspace: str) -> str:
    """The claim for the files of a workspace."""
    return f"{stem(workspace)}-home"


def serving_name(pool: str) -> str:
    """The Deployment, the Service and the PodDisruptionBudget of a serving pool."""
    return stem(pool)


def label_value(name: str) -> str:
    """The name as a label value: itself where it fits."""
    return name if len(name) <= LONGEST_LABEL else stem(name, LONGEST_LABEL)
