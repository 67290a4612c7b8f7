"""Tables for people (Markdown, so that they can be pasted) and JSON for programs."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.proc import Strangers
from bench.stats import percentile

ROOT = Path(__file__).resolve().parent.parent.parent
#: A machine is quiet while nobody else uses more of it.
QUIET_CORES = 0.1


def progress(text: str) -> None:
    """What goes on, on standard error: standard output has the tables alone."""
    print(f"… {text}", file=sys.stderr, flush=True)


def table(title: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table whose columns are the keys of the first row."""
    if not rows:
        return ""
    names = list(rows[0])
    cells = [names, *([_text(row.get(name)) for name in names] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(names))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join([f"\n{title}\n", *lines])


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "NO"
    return f"{value:,.6g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def machine(folder: Path | None = None) -> dict[str, Any]:
    """Where this runs: two measurements can be compared if this is alike."""
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": _commit(),
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_GiB": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 2),
        "loop_ms": _loop_ms(),
        "fsync_ms": _fsync_ms(folder),
    }


def warn_if_busy() -> None:
    """Says so when somebody else uses the machine."""
    strangers = Strangers()
    time.sleep(1.0)
    if (cores := strangers.cores()) > QUIET_CORES:
        progress(f"others use {cores:g} cores of this machine: such figures say little")


def save(path: Path | None, content: Mapping[str, Any]) -> None:
    if path is not None:
        path.write_text(json.dumps(content, indent=2, default=str) + "\n")
        progress(f"written: {path}")


def _commit() -> str:
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:  # there is no git here
        return ""


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def _loop_ms() -> float:
    """A fixed piece of Python, best of five: how fast this machine is just now."""
    times = []
    for _ in range(5):
        began = time.perf_counter()
        total = 0
        for number in range(200_000):
            total += number & 7
        times.append(time.perf_counter() - began)
    return round(min(times) * 1000, 2)


def _fsync_ms(folder: Path | None) -> float:
    """4 KiB written and synced, the median of 50: what a commit waits for at least."""
    with tempfile.TemporaryFile(dir=folder) as file:
        times = []
        for _ in range(50):
            began = time.perf_counter()
            file.write(b"x" * 4096)
            file.flush()
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - began)
    return round(percentile(times, 0.5) * 1000, 3)
