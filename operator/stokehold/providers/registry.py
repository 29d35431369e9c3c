"""Which provider a pool's spec names; made once for each version of the spec."""

from collections.abc import Callable, Collection
from datetime import datetime

from stokehold.cluster.client import KubeApi
from stokehold.model.snapshot import NodePool
from stokehold.providers.base import ConfigError, Provider
from stokehold.providers.simulated import Simulated
from stokehold.providers.webhook import Credentials, Webhook

PoolKey = tuple[str, str]
"""Name and uid. Of a pool that is gone, claims may remember several providers: each is one of its own."""


class Registry:
    """Providers by pool."""

    def __init__(self, api: KubeApi, namespace: str, clock: Callable[[], datetime]) -> None:
        self._api = api
        self._namespace = namespace
        self._clock = clock
        self._made: dict[PoolKey, tuple[int, Provider]] = {}
        self._retired: list[Provider] = []

    def of(self, pool: NodePool) -> Provider:
        """The pool's provider; ConfigError for one that this version does not know."""
        known = self._made.get((pool.name, pool.uid))
        if known is not None and known[0] == pool.generation:
            return known[1]
        made = self._make(pool)
        self._made[pool.name, pool.uid] = (pool.generation, made)
        if known is not None:
            self._retired.append(known[1])
        return made

    async def close(self, keep: Collection[PoolKey] = (), asked: Collection[Provider] = ()) -> None:
        """Close the providers of all pools but these, and those that a newer spec has replaced; later those that are
        being `asked` something."""
        for key in self._made.keys() - set(keep):
            self._retired.append(self._made.pop(key)[1])
        done = [provider for provider in self._retired if not any(provider is one for one in asked)]
        self._retired = [provider for provider in self._retired if provider not in done]
        for provider in done:
            await provider.close()

    def _make(self, pool: NodePool) -> Provider:
        spec = pool.spec.provider
        if spec is not None and spec.simulated is not None:
            return Simulated(self._api, spec.simulated)
        if spec is not None and spec.webhook is not None:
            credentials = Credentials(self._api, self._namespace, spec.webhook.secret_ref)
            return Webhook(spec.webhook, credentials, lambda: self._clock().timestamp())
        named = ", ".join(sorted(spec.model_fields_set)) if spec is not None else "none"
        raise ConfigError(f"provider {named} is not built into this version; use webhook")
