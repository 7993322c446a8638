"""Benchmarks of an update: python -m benchmarks."""
