"""Tickets: who decides whether a job that lies in a slot's socket begins.

Short jobs are sent to a slot ahead of time, so that it need not wait for its supervisor after each. What has been sent
cannot be taken back from a socket; its ticket can. Each job has one, a number in a pipe that both sides read:

    supervisor ──▶ 41 42 43 ──▶ slot: takes 41, and begins job 41
                   └──────▶ supervisor: takes back 42 and 43, and knows that they never begin there

Whoever reads a number has it, so each job begins in one place at the most, and when a slot dies, the tickets that it
has left tell which of its jobs had not begun. A slot that finds a later ticket than that of the job at hand drops the
job: it was taken back.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable

_TICKET = struct.Struct("=Q")
#: The most that is taken back at once: what a pipe holds.
_ALL = 64 * 1024


class TicketOffice:
    """The supervisor's side.

    Attributes:
        counter: the descriptor for the slot, until it is sent there.

    Raises:
        OSError: there is no room for open files.
    """

    def __init__(self) -> None:
        self.counter, self._window = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        # Not the same open file as the slot's: a function may set the flags of that one, and we must never wait.
        try:
            self._returns = os.open(f"/proc/self/fd/{self.counter}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            os.close(self.counter)
            os.close(self._window)
            raise
        os.set_blocking(self.counter, True)

    def issue(self, numbers: Iterable[int]) -> None:
        """Lets these jobs begin, in this order.

        Raises:
            BlockingIOError: the pipe is full, with what is not ours.
        """
        os.write(self._window, b"".join(map(_TICKET.pack, numbers)))

    def take_back(self) -> set[int]:
        """The numbers of jobs that have not begun, and do not begin any more."""
        try:
            raw = os.read(self._returns, _ALL)
        except BlockingIOError:
            return set()
        whole = len(raw) - len(raw) % _TICKET.size
        return {number for (number,) in _TICKET.iter_unpack(raw[:whole])}

    def close(self) -> None:
        os.close(self._window)
        os.close(self._returns)


class Tickets:
    """The slot's side, on the descriptor of a counter."""

    def __init__(self, counter: int) -> None:
        self._counter = counter
        self._taken = 0

    def admit(self, number: int) -> bool:
        """Waits until it is decided: True if this job begins here, now; False if it was taken back.

        Raises:
            EOFError: the supervisor is gone.
        """
        while self._taken < number:
            raw = os.read(self._counter, _TICKET.size)
            if len(raw) < _TICKET.size:
                raise EOFError
            (self._taken,) = _TICKET.unpack(raw)
        return self._taken == number
