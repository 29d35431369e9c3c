"""How many replicas each serving pool has, and what its children look like. It looks for no GPUs."""
