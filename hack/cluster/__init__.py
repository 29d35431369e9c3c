"""A real control plane on loopback, with simulated GPU nodes, for tests, the demo and benchmarks."""

from hack.cluster.local import LocalCluster
from hack.cluster.spec import ClusterSpec, Mig, Pool, SpecError

__all__ = ["ClusterSpec", "LocalCluster", "Mig", "Pool", "SpecError"]
