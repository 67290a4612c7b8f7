"""Whether the ports are free, asked before anything starts: a process that dies of it later explains it badly."""

from __future__ import annotations

import errno
import os
import socket

from everythingfaas.errors import ConfigurationError
from everythingfaas.settings import Settings, variable


def check_ports(settings: Settings) -> None:
    """Try the addresses that the appliance is going to listen on.

    Raises:
        ConfigurationError: one cannot be had.
    """
    _check(settings.listen, settings.port, "listen", "port")
    if settings.mode != "local" and not settings.dispatcher_bind.startswith("ipc://"):
        _check(settings.dispatcher_bind, settings.dispatcher_port, "dispatcher_bind", "dispatcher_port")


def _check(host: str, port: int, host_setting: str, port_setting: str) -> None:
    flag = "--" + port_setting.replace("_", "-")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            # As the servers do: what a connection that was closed a moment ago keeps is no obstacle.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except socket.gaierror as error:
        raise ConfigurationError(f"{variable(host_setting)}={host} cannot be found: {error.strerror}") from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConfigurationError(
                f"port {port} on {host} is in use: stop what listens there, or choose another with {flag} "
                f"({variable(port_setting)})"
            ) from None
        reason = os.strerror(error.errno or 0)
        raise ConfigurationError(
            f"cannot listen on {host}, port {port}: {reason}; see {variable(host_setting)} and {variable(port_setting)}"
        ) from None
