"""Decisions: pure functions from a Snapshot to actions with reasons."""
