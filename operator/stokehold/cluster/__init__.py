"""Kubernetes I/O, and nothing else does it: one reader (snapshots), one writer (apply)."""
