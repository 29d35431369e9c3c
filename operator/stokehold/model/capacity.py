"""What providers of nodes say: the machines they run for us, and their answers to what we asked."""

from dataclasses import dataclass
from datetime import datetime

from stokehold.model.reasons import ClaimFailure


@dataclass(frozen=True, slots=True)
class Instance:
    """A machine at a provider; `request_id` is the uid of the claim that it was asked for by."""

    provider_id: str
    request_id: str
    node_name: str = ""
    zone: str = ""
    instance_type: str = ""
    launched_at: datetime | None = None
    """When the provider began to charge."""


@dataclass(frozen=True, slots=True)
class Listing:
    """All machines that a pool's provider runs for this cluster; None: it could not be asked, `error` says why."""

    asked_at: datetime
    instances: tuple[Instance, ...] | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Refusal:
    """The provider will not deliver; asking again at once would change nothing."""

    reason: ClaimFailure
    message: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Terminated:
    """The provider has taken the machine away, or never had it."""

    at: datetime


Answer = Instance | Refusal | Terminated
