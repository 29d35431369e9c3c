"""Annotations that only this operator writes and reads on its pods; the labels are part of the API (api/names)."""

from stokehold.api.names import KEY_PREFIX

GANG_SIZE = f"{KEY_PREFIX}gang-size"
RESTARTS = f"{KEY_PREFIX}restarts"
PLACEMENT = f"{KEY_PREFIX}placement"
"""On the lead worker alone: the node of each index, comma-separated."""
JOB_NAME = f"{KEY_PREFIX}job-name"
"""The job's whole name, where it is too long for the label."""
POOL = f"{KEY_PREFIX}pool"
GPU_TYPE = f"{KEY_PREFIX}gpu-type"
CAPACITY = f"{KEY_PREFIX}capacity"
