"""What providers of nodes say: the machines they run for us, and their answers to what we asked."""

from dataclasses import dataclass
from datetime import datetime

from stokehold.model.reasons import ClaimFailure
from stokehold.model.taints import Taint


@dataclass(frozen=True, slots=True)
class NodeRequest:
    """One node asked for. Everything that a provider needs to know to make it, so that it reads nothing else."""

    request_id: str
    """The uid of the claim. Asking twice with it buys once."""
    claim: str
    """The name of the claim: the value of the label stokehold.dev/claim that the node must have."""
    pool: str
    owner: str
    """The cluster that asks: the uid of its namespace kube-system."""
    gpu_type: str
    gpus: int
    gpu_resource: str
    capacity_class: str
    zone: str = ""
    instance_type: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    taints: tuple[Taint, ...] = ()
    resources: tuple[tuple[str, str], ...] = ()
    """What the node must offer to pods, as quantities by resource."""
    expires_at: datetime | None = None
    """When the machine is given back at the latest; a provider that can should end it by itself then."""


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
