"""A request for one node."""

from stokehold.model.capacity import NodeRequest
from stokehold.model.taints import Taint

POOL = "contract"


def a_request(request_id: str, zone: str = "z1") -> NodeRequest:
    return NodeRequest(
        request_id=request_id,
        claim=f"claim-{request_id}",
        pool=POOL,
        owner="cluster-1",
        gpu_type="h100",
        gpus=8,
        gpu_resource="nvidia.com/gpu",
        capacity_class="on-demand",
        zone=zone,
        labels=(("stokehold.dev/claim", f"claim-{request_id}"), ("topology.kubernetes.io/zone", zone)),
        taints=(Taint("stokehold.dev/burst", "", "NoSchedule"),),
        resources=(("cpu", "96"), ("nvidia.com/gpu", "8")),
    )
