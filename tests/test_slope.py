"""Whether memory grows, told from samples that resemble their neighbours."""

import numpy as np
from load import Slope


def _wandering(seed: int, a_day: float) -> Slope:
    """Two hours of a process that comes back to its mean within two minutes or so, and grows by so much."""
    chance, value, values = np.random.default_rng(seed), 0.0, []
    for _ in range(3600):
        value = 0.98 * value + chance.normal()
        values.append(value)
    seconds = 2.0 * np.arange(3600)
    return Slope.of(list(seconds), list(200 + np.array(values) + a_day * seconds / 86_400))


def test_what_only_wanders_is_flat() -> None:
    found = [_wandering(seed, 0.0).is_flat(0.0) for seed in range(200)]
    assert sum(found) > 185  # with each sample taken for one of its own it were 117


def test_what_grows_is_not() -> None:
    found = [_wandering(seed, 200.0) for seed in range(200)]
    assert not any(slope.is_flat(100.0) for slope in found if slope.per_day > 100)
    assert abs(np.mean([slope.per_day for slope in found]) - 200) < 10
    assert sum(not slope.is_flat(100.0) for slope in found) > 190
