"""Benchmarks: each beside its baselines in one run, in turn, so that the machine's mood hits all alike."""
