"""Who leads, and how one leader is made to follow another although its network plays tricks."""

import json
import time

from hack.cluster import LocalCluster
from hack.fault_proxy import FaultProxy, renewals
from hack.installation import NAMESPACE, OperatorProcess

from kit.jobs import wait_until

RENEW_DEADLINE = 10
ENDS_WITHIN = RENEW_DEADLINE + 5
"""Seconds from the last renewal that was granted until the old leader's process has ended."""


def leads(operator: OperatorProcess) -> bool:
    return operator.metric("stokehold_leader") == 1


def replace_leader(old: OperatorProcess, new: OperatorProcess, proxy: FaultProxy) -> float:
    """The old leader's renewals do not arrive until it has ended and the other leads; then they do.

    Returns the seconds from the last renewal that was granted until the old leader's process had ended.
    """
    late = proxy.hold(renewals)
    assert old.wait_end(40) != 0
    ended_at = time.monotonic()
    wait_until(lambda: leads(new), 40)
    took = ended_at - last_renewal(proxy)
    proxy.end(late)
    return took


def transitions(cluster: LocalCluster) -> int:
    lease = json.loads(cluster.kubectl("-n", NAMESPACE, "get", "lease", "stokehold", "-o", "json"))
    return int(lease["spec"].get("leaseTransitions", 0))


def last_renewal(proxy: FaultProxy) -> float:
    """When the last renewal came that was granted at once; one that was held counts from when it came, too."""
    return max(call.received_at for call in list(proxy.calls) if call.method == "PUT" and call.status == 200)
