"""A worker that is sent to: one DEALER socket, on which the dispatcher keeps its slots busy and a little more."""

from __future__ import annotations

from worker.channel import Channel


class PushChannel(Channel):
    """The way to a dispatcher in push mode."""
