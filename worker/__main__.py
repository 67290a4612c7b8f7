"""`python -m worker push 4 tcp://localhost:5555`: a worker without Django and without a command line library."""

from __future__ import annotations

import sys
from argparse import ArgumentParser

from everythingfaas.errors import FaasError
from worker.arguments import add_arguments
from worker.command import CHANNELS, configure_logging, run


def main() -> int:
    parser = ArgumentParser(prog="python -m worker", description=__doc__.partition(":")[2].strip())
    parser.add_argument("mode", choices=sorted(CHANNELS), help="whether it asks for tasks, or is sent them")
    add_arguments(parser)
    options = parser.parse_args()
    try:
        configure_logging()
        return run(options.mode, options.slots, options.urls)
    except FaasError as error:
        sys.stderr.write(f"worker: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
