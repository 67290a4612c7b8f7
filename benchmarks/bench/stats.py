"""Percentiles, and the median of rounds."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence


def percentile(values: Iterable[float], q: float) -> float:
    """The value at rank q (0 to 1) of the sorted values; no interpolation."""
    ordered = sorted(values)
    return ordered[round(q * (len(ordered) - 1))]


def latencies(seconds: Sequence[float]) -> dict[str, float]:
    """p50, p95 and p99 in milliseconds."""
    return {
        "p50_ms": round(percentile(seconds, 0.50) * 1000, 2),
        "p95_ms": round(percentile(seconds, 0.95) * 1000, 2),
        "p99_ms": round(percentile(seconds, 0.99) * 1000, 2),
    }


def median_of(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The median of each figure over the rounds. Machines drift: a median of three says more than one long run."""
    return {name: round(statistics.median(figures[name] for figures in rounds), 4) for name in rounds[0]}


def spread(rounds: Sequence[Mapping[str, float]], name: str) -> str:
    """Lowest and highest of one figure."""
    values = [figures[name] for figures in rounds]
    return f"{min(values):g} to {max(values):g}"
