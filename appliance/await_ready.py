"""Waits until the web answers that everything serves: ``python -m appliance.await_ready HOST PORT HOST_HEADER``.

A process of its own, because it needs an HTTP client and a clock that ticks, for a second in the life of the
appliance; the supervisor, which stays, has neither.
"""

from __future__ import annotations

import http.client
import sys
import time

from appliance.console import tell

_PAUSE_S = 0.03
_LONG_PAUSE_S = 0.5
_PATIENCE_S = 30.0


def answer(host: str, port: int, host_header: str) -> str:
    """Status and body of what ``GET /readyz`` answers; why there is no answer, if there is none."""
    connection = http.client.HTTPConnection(host, port, timeout=5)
    try:
        connection.request("GET", "/readyz", headers={"Host": host_header, "Accept": "application/json"})
        response = connection.getresponse()
        detail = response.read(500).decode(errors="replace").strip()
    except (OSError, http.client.HTTPException) as error:
        return str(error) or type(error).__name__
    else:
        return f"{response.status} {detail}"
    finally:
        connection.close()


def main(arguments: list[str]) -> int:
    host, port, host_header = arguments
    began = time.monotonic()
    complained = False
    while not (said := answer(host, int(port), host_header)).startswith("200 "):
        impatient = time.monotonic() - began > _PATIENCE_S
        if impatient and not complained:
            tell(f"faas: not ready after {_PATIENCE_S:.0f} s, still waiting; /readyz says: {said}")
            complained = True
        time.sleep(_LONG_PAUSE_S if impatient else _PAUSE_S)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
