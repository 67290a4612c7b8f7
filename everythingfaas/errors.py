"""What we raise.

    FaasError
    ├── ConfigurationError      a setting cannot be read or does not fit; says which, and what to do
    ├── IllegalMove             a state change that the table of moves does not have: our own mistake
    ├── ProtocolError           the peer's mistake: bytes on a socket that are no message of ours
    │   └── VersionMismatch     a message of a protocol version that we do not speak
    ├── InvalidPayload          a client's payload is no base64, no pickle, or a pickle of the wrong kind
    ├── StoreUnavailable        the database cannot be reached or written now; nothing was accepted
    ├── Unreachable             no service answers where the client looks for it
    ├── Refused                 the service has answered, and does not do it: `status`, `code` and `field` say why
    └── UnreadableResult        a result that cannot be loaded in this process; says what is missing

What a *task* ends with, and clients find in its result, stands in `everythingfaas.failures`.
"""

from __future__ import annotations


class FaasError(Exception):
    """Root of everything that EverythingFaaS raises on purpose."""


class ConfigurationError(FaasError):
    """A setting cannot be read or does not fit. The message names it and says what to do."""


class IllegalMove(FaasError):
    """A task was to change its state in a way that the table of moves does not have."""


class ProtocolError(FaasError):
    """A peer sent bytes that are not a message of ours."""


class VersionMismatch(ProtocolError):
    """A peer speaks another version of the protocol."""

    def __init__(self, theirs: int, ours: int) -> None:
        super().__init__(f"peer speaks protocol version {theirs}, this process speaks {ours}")
        self.theirs = theirs


class InvalidPayload(FaasError):
    """A client's payload is no base64, no pickle, or a pickle of the wrong kind."""


class StoreUnavailable(FaasError):
    """The database cannot be reached or written now. Nothing was accepted."""


class Unreachable(FaasError):
    """No service answers. The message says where it was looked for."""


class Refused(FaasError):
    """The service does not do what it was asked for.

    Attributes:
        status: the status of HTTP.
        code: the service's word for it, as "not_found".
        field: the part of the request that it is about, if there is one.
    """

    def __init__(self, status: int, code: str, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.field = field

    def __reduce__(self) -> tuple[type[Refused], tuple[object, ...]]:
        return type(self), (self.status, self.code, str(self), self.field)


class UnreadableResult(FaasError):
    """The task has ended, and its result cannot be loaded here.

    Attributes:
        raw: the pickle.
    """

    def __init__(self, message: str, raw: bytes) -> None:
        super().__init__(message)
        self.raw = raw

    def __reduce__(self) -> tuple[type[UnreadableResult], tuple[object, ...]]:
        return type(self), (str(self), self.raw)
