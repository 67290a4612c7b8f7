"""What running functions print, passed on while they run: without I/O, for `worker.session`.

Live output is a convenience, and the first thing to be dropped. All of it counts against small limits, for each run
and for all together, in each tenth of a second; what goes over is counted and thrown away unseen. A run that is over
within a moment tells nothing here, for its result brings the head and the tail of what it printed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from everythingfaas.wire.messages import Log, LogEntry

#: Nothing is passed on of a run that is younger.
AFTER_S = 0.1
#: Messages are so far apart, or more.
EVERY_S = 0.1
#: In one message: bytes of one run, and of all. Together 80 kB/s for one, 1.2 MB/s for all.
RUN_BYTES = 8 * 1024
ALL_BYTES = 128 * 1024

Key = tuple[str, int]


@dataclass(slots=True)
class _Run:
    begun_at: float
    data: bytearray = field(default_factory=bytearray)
    dropped: int = 0  #: bytes since the last message that did not fit
    told: bool = False  #: something of it was passed on


class OutputRelay:
    """Gathers output, and gives it out in small batches."""

    def __init__(self) -> None:
        self._runs: dict[Key, _Run] = {}
        self._ended: list[tuple[Key, _Run]] = []
        self._waiting: set[Key] = set()  # runs of which there is something to tell
        self._next_at = 0.0

    def begun(self, key: Key, now: float) -> None:
        self._runs[key] = _Run(now)

    def printed(self, key: Key, data: bytes) -> None:
        """Costs next to nothing once the limit of a run is reached."""
        run = self._runs.get(key)
        if run is None:
            return
        room = RUN_BYTES - len(run.data)
        if room > 0:
            run.data += data[:room]
            self._waiting.add(key)
        run.dropped += max(0, len(data) - room)

    def ended(self, key: Key) -> None:
        """What is left is told if the run has told something before; else the result tells it all."""
        run = self._runs.pop(key, None)
        self._waiting.discard(key)
        if run is not None and run.told and run.data:
            self._ended.append((key, run))

    def clear(self) -> None:
        """All runs are gone."""
        self._runs.clear()
        self._waiting.clear()
        self._ended.clear()

    def next_deadline(self) -> float | None:
        """When `flush` has something to give, if nothing else happens before."""
        if self._ended:
            return self._next_at
        if not self._waiting:
            return None
        return max(self._next_at, min(self._runs[key].begun_at for key in self._waiting) + AFTER_S)

    def flush(self, now: float) -> Log | None:
        """What has gathered, if it is time."""
        if now < self._next_at or not (self._ended or self._waiting):
            return None
        due = self._ended + [
            (key, self._runs[key]) for key in self._waiting if now >= self._runs[key].begun_at + AFTER_S
        ]
        if not due:
            return None
        self._ended = []
        self._waiting.difference_update(key for key, _ in due)
        self._next_at = now + EVERY_S
        room, entries = ALL_BYTES, []
        for key, run in due:
            data = bytes(run.data[:room])
            entries.append(LogEntry(key[0], key[1], data, run.dropped + len(run.data) - len(data)))
            room -= len(data)
            run.told = True
            run.dropped = 0
            run.data.clear()
        return Log(tuple(entries))
