"""Which provider a pool's spec names; made once for each version of the spec."""

from collections.abc import Callable, Iterable
from datetime import datetime

from stokehold.cluster.client import KubeApi
from stokehold.model.snapshot import NodePool
from stokehold.providers.base import ConfigError, Provider
from stokehold.providers.simulated import Simulated
from stokehold.providers.webhook import Credentials, Webhook


class Registry:
    """Providers by pool."""

    def __init__(self, api: KubeApi, namespace: str, clock: Callable[[], datetime]) -> None:
        self._api = api
        self._namespace = namespace
        self._clock = clock
        self._made: dict[str, tuple[str, int, Provider]] = {}
        self._retired: list[Provider] = []

    def of(self, pool: NodePool) -> Provider:
        """The pool's provider; ConfigError for one that this version does not know."""
        known = self._made.get(pool.name)
        if known is not None and known[:2] == (pool.uid, pool.generation):
            return known[2]
        made = self._make(pool)
        self._made[pool.name] = (pool.uid, pool.generation, made)
        if known is not None:
            self._retired.append(known[2])
        return made

    async def close(self, keep: Iterable[str] = ()) -> None:
        """Close the providers of all pools but these, and those that a newer spec has replaced."""
        for name in self._made.keys() - set(keep):
            self._retired.append(self._made.pop(name)[2])
        while self._retired:
            await self._retired.pop().close()

    def _make(self, pool: NodePool) -> Provider:
        spec = pool.spec.provider
        if spec is not None and spec.simulated is not None:
            return Simulated(self._api, spec.simulated)
        if spec is not None and spec.webhook is not None:
            credentials = Credentials(self._api, self._namespace, spec.webhook.secret_ref)
            return Webhook(spec.webhook, credentials, lambda: self._clock().timestamp())
        named = ", ".join(sorted(spec.model_fields_set)) if spec is not None else "none"
        raise ConfigError(f"provider {named} is not built into this version; use webhook")
