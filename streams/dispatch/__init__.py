"""Batches to Avstar: paced, retried, broken off, halved, settled."""
