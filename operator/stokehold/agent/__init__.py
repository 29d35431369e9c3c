"""The node agent: what the GPUs of one node do, and for whom. Decides nothing about workloads.

`sampler_child` holds NVML in a process of its own, `sampler` watches it, `sampling` and
`node_state` judge, `attribution` and `processes` say whose a GPU is, `publish` and `metrics` tell.
"""
