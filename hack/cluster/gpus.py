"""What GPU Feature Discovery would say of each GPU type: the labels that real nodes carry."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GpuType:
    """One product, in the words of its labels."""

    product: str
    memory_mib: int
    family: str
    compute: str  # capability, major.minor
    machine: str
    mig_capable: bool


GPU_TYPES: Mapping[str, GpuType] = {
    "b200": GpuType("NVIDIA-B200", 183359, "blackwell", "10.0", "DGX-B200", mig_capable=True),
    "h200": GpuType("NVIDIA-H200", 143771, "hopper", "9.0", "DGX-H200", mig_capable=True),
    "h100": GpuType("NVIDIA-H100-80GB-HBM3", 81559, "hopper", "9.0", "DGX-H100", mig_capable=True),
    "a100-80gb": GpuType("NVIDIA-A100-SXM4-80GB", 81920, "ampere", "8.0", "DGX-A100", mig_capable=True),
    "a100-40gb": GpuType("NVIDIA-A100-SXM4-40GB", 40960, "ampere", "8.0", "DGX-A100", mig_capable=True),
    "l40s": GpuType("NVIDIA-L40S", 46068, "ada-lovelace", "8.9", "SYS-421GE-TNRT", mig_capable=False),
    "t4": GpuType("Tesla-T4", 15360, "turing", "7.5", "g4dn.xlarge", mig_capable=False),
}


def feature_labels(gpu: GpuType, count: int) -> dict[str, str]:
    """The labels of a node with `count` whole GPUs of a type."""
    major, minor = gpu.compute.split(".")
    return {
        "nvidia.com/gpu.present": "true",
        "nvidia.com/gpu.product": gpu.product,
        "nvidia.com/gpu.count": str(count),
        "nvidia.com/gpu.memory": str(gpu.memory_mib),
        "nvidia.com/gpu.family": gpu.family,
        "nvidia.com/gpu.machine": gpu.machine,
        "nvidia.com/gpu.mode": "compute",
        "nvidia.com/gpu.replicas": "1",
        "nvidia.com/gpu.sharing-strategy": "none",
        "nvidia.com/gpu.compute.major": major,
        "nvidia.com/gpu.compute.minor": minor,
        "nvidia.com/cuda.driver-version.full": "580.95.05",
        "nvidia.com/cuda.driver-version.major": "580",
        "nvidia.com/cuda.runtime-version.full": "13.0",
        "nvidia.com/mig.capable": str(gpu.mig_capable).lower(),
        "nvidia.com/mig.strategy": "none",
    }


def mig_single_labels(gpu: GpuType, profile: str, slices: int) -> dict[str, str]:
    """With the single strategy a node speaks of its slices as if they were its GPUs."""
    return feature_labels(gpu, slices) | {
        "nvidia.com/gpu.product": f"{gpu.product}-MIG-{profile}",
        "nvidia.com/gpu.memory": str(profile_memory_mib(profile)),
        "nvidia.com/mig.strategy": "single",
    }


def mig_mixed_labels(gpu: GpuType, whole_gpus: int, profiles: Mapping[str, int]) -> dict[str, str]:
    """With the mixed strategy whole GPUs keep their labels and each profile has its own."""
    labels = feature_labels(gpu, whole_gpus) | {"nvidia.com/mig.strategy": "mixed"}
    for profile, slices in profiles.items():
        labels |= {
            f"nvidia.com/mig-{profile}.count": str(slices),
            f"nvidia.com/mig-{profile}.product": f"{gpu.product}-MIG-{profile}",
            f"nvidia.com/mig-{profile}.memory": str(profile_memory_mib(profile)),
            f"nvidia.com/mig-{profile}.replicas": "1",
        }
    return labels


def profile_memory_mib(profile: str) -> int:
    """10240 of 1g.10gb: near what the driver reports, which differs a little between products."""
    return int(profile.partition(".")[2].partition("gb")[0]) * 1024
