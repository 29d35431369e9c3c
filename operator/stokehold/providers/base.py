"""What every provider of nodes does, and how it says that it cannot. Nothing here knows a particular one.

ProviderError
├── RefusedError           asking again at once would change nothing; the pool's breaker opens
│   ├── CapacityError      no such machine is free now
│   ├── QuotaError         the account may not have more
│   ├── ConfigError        the request makes no sense to the provider
│   └── AuthError          our credentials are not accepted
└── RetryLaterError        nobody knows what became of the request; ask again under the same id
    ├── RateLimitedError   too many requests
    └── UnavailableError   no answer, or none that can be understood
"""

from typing import ClassVar, Protocol

from stokehold.model.capacity import Instance, NodeRequest
from stokehold.model.reasons import ClaimFailure


class Provider(Protocol):
    """One pool's source of nodes. Every call may be cancelled at any moment and made again."""

    poll_seconds: float
    """How often it may be asked which machines there are while some are on their way."""

    async def launch(self, request: NodeRequest) -> Instance:
        """The machine for the request. Idempotent by `request.request_id`: the second time it is the same one."""

    async def instances(self, pool: str, owner: str) -> tuple[Instance, ...]:
        """Every machine that runs for this pool of this cluster, whoever asked for it."""

    async def terminate(self, provider_id: str) -> None:
        """Take the machine away; one that is unknown, or going already, is fine."""

    async def close(self) -> None:
        """Let go of connections."""


class ProviderError(Exception):
    """The provider did not do what it was asked."""

    outcome: ClassVar[str] = "error"
    """The class of the outcome, as metrics count it."""


class RefusedError(ProviderError):
    """It will not."""

    reason: ClassVar[ClaimFailure]


class CapacityError(RefusedError):
    """No such machine is free now."""

    outcome, reason = "capacity", ClaimFailure.CAPACITY


class QuotaError(RefusedError):
    """The account may not have more."""

    outcome, reason = "quota", ClaimFailure.QUOTA


class ConfigError(RefusedError):
    """The request, or the pool's spec, makes no sense to the provider."""

    outcome, reason = "config", ClaimFailure.CONFIG


class AuthError(RefusedError):
    """Our credentials are not accepted."""

    outcome, reason = "auth", ClaimFailure.AUTH


class RetryLaterError(ProviderError):
    """It may have done it or not; ask again after `retry_after` seconds."""

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class RateLimitedError(RetryLaterError):
    """Too many requests."""

    outcome = "rate-limited"


class UnavailableError(RetryLaterError):
    """No answer, or none that can be understood."""

    outcome = "unavailable"
