"""Benchmarks: rivals in the same run, one JSON line last."""
