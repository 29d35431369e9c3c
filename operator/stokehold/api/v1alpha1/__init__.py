"""The kinds of stokehold.dev/v1alpha1, one module each."""

from stokehold.api.base import Kind
from stokehold.api.v1alpha1.dev_workspace import DevWorkspace
from stokehold.api.v1alpha1.gpu_node import GPUNode
from stokehold.api.v1alpha1.gpu_node_claim import GPUNodeClaim
from stokehold.api.v1alpha1.gpu_node_pool import GPUNodePool
from stokehold.api.v1alpha1.gpu_queue import GPUQueue
from stokehold.api.v1alpha1.inference_pool import InferencePool
from stokehold.api.v1alpha1.training_job import TrainingJob

# In the order of the documentation: what users write, what the platform team writes, what programs write.
KINDS: tuple[type[Kind], ...] = (
    TrainingJob,
    InferencePool,
    DevWorkspace,
    GPUQueue,
    GPUNodePool,
    GPUNodeClaim,
    GPUNode,
)

__all__ = [
    "KINDS",
    "DevWorkspace",
    "GPUNode",
    "GPUNodeClaim",
    "GPUNodePool",
    "GPUQueue",
    "InferencePool",
    "TrainingJob",
]
