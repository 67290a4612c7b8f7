"""What the commands that start a worker take: `faas worker`, `manage.py push_worker`, `python -m worker`."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError

SLOTS_HELP = "how many functions run at the same time, each in a process of its own"
URLS_HELP = "where a dispatcher listens: tcp://HOST:PORT or ipc:///PATH; of several, the next is tried when one is lost"


def add_arguments(parser: ArgumentParser) -> None:
    """What all of the commands take."""
    parser.add_argument("slots", metavar="N", type=_positive, help=SLOTS_HELP)
    parser.add_argument("urls", metavar="URL", type=dispatcher_url, nargs="+", help=URLS_HELP)


def dispatcher_url(text: str) -> str:
    """`text`, if it is an address that a worker can connect to; for argparse, which says so otherwise."""
    scheme, separator, rest = text.partition("://")
    port = rest.rpartition(":")[2]
    if separator and scheme == "ipc" and rest:
        return text
    if separator and scheme == "tcp" and ":" in rest and port.isascii() and port.isdigit() and 0 < int(port) < 65536:
        return text
    raise ArgumentTypeError(f"{text!r} is not tcp://HOST:PORT or ipc:///PATH")


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise ArgumentTypeError(f"{text!r} is not a number above 0")
    return int(text)
