"""Metrics, logs and health of the programs. Knows nothing of decisions."""
