"""How long an update takes: python -m benchmarks."""
