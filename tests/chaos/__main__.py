"""`make chaos`: everything here in turn, one table at the end, and exit status 1 if anything was not as it has to be.

Each part is a program of its own (`python -m tests.chaos.zoo`, …), so that none sees what another has left.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time

from tests.live import ROOT

#: Name, module and arguments, in the order in which they run.
PARTS: tuple[tuple[str, ...], ...] = (
    ("simulation", "simulate", "--seeds", "5000"),
    ("simulation, safeguards taken out", "simulate_controls"),
    ("hostile functions", "zoo"),
    ("time that kills take", "latency"),
    ("processes, SQLite, 3 dispatchers", "processes", "--database", "sqlite", "--modes", "push,pull,local"),
    (
        "processes, PostgreSQL, 2 dispatchers",
        "processes",
        "--database",
        "postgresql",
        "--modes",
        "push,local",
        "--slots",
        "15",
    ),
)
#: One that hangs is a failure as well.
LIMIT_S = 400


def main() -> int:
    table = []
    for name, module, *arguments in PARTS:
        print(f"== {name}", flush=True)
        begun = time.monotonic()
        status, last = _run([sys.executable, "-m", f"tests.chaos.{module}", *arguments])
        table.append((name, time.monotonic() - begun, status, last))
    print("\n== all together")
    for name, elapsed_s, status, last in table:
        print(f"{'as due' if status == 0 else 'WRONG':7} {name:38} {elapsed_s:5.0f} s  {last}")
    return 1 if any(status for _, _, status, _ in table) else 0


def _run(command: list[str]) -> tuple[int, str]:
    """Exit status, and the last line that it printed: each part ends with its sum."""
    last = ""
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        # First as Ctrl-C does it, so that it ends what it has started.
        limits = [
            threading.Timer(LIMIT_S, process.send_signal, [signal.SIGINT]),
            threading.Timer(LIMIT_S + 30, process.kill),
        ]
        for limit in limits:
            limit.start()
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            last = line.strip() or last
        status = process.wait()
        for limit in limits:
            limit.cancel()
    return status, last


if __name__ == "__main__":
    sys.exit(main())
