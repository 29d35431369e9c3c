"""Wiring: joins decisions with I/O. Handlers only wake a cycle."""
