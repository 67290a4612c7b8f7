"""A parameter sweep with a progress bar: python examples/sweep.py [URL]

Estimates pi with more and more samples, once for each of some seeds, on all workers at once.
"""

import statistics
import sys

from everythingfaas import Executor


def estimate(samples, seed):
    import random

    numbers = random.Random(seed)
    inside = sum(numbers.random() ** 2 + numbers.random() ** 2 <= 1 for _ in range(samples))
    return 4 * inside / samples


SAMPLES = [100, 1_000, 10_000]
SEEDS = range(20)

url = sys.argv[1] if len(sys.argv) > 1 else None  # else FAAS_URL, or http://127.0.0.1:8000
points = [(samples, seed) for samples in SAMPLES for seed in SEEDS]
with Executor(url, name="pi", retries=2) as executor:
    values = list(executor.map(estimate, *zip(*points, strict=True), progress=True))
for samples in SAMPLES:
    found = [value for value, (used, _) in zip(values, points, strict=True) if used == samples]
    print(f"{samples:6} samples: {statistics.mean(found):.2f} ± {statistics.stdev(found):.3f}")
