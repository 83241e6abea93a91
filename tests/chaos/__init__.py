"""Chaos: kills, network faults and a cluster's faults together, and books that must agree afterwards."""
