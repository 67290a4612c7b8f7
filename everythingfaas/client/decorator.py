"""A decorator for functions that can run elsewhere."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from typing_extensions import ParamSpec

from everythingfaas.client.inbox import RemoteFuture

if TYPE_CHECKING:
    from everythingfaas.client.api import Client

P = ParamSpec("P")
R = TypeVar("R")


class RemoteFunction(Generic[P, R]):
    """A function that runs here when it is called, and on the service by `submit` and `map`."""

    def __init__(self, function: Callable[P, R], client: Client, policy: dict[str, Any]) -> None:
        self._function = function
        self._client = client
        self._policy = policy
        functools.update_wrapper(self, function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._function(*args, **kwargs)

    def submit(self, *args: P.args, **kwargs: P.kwargs) -> RemoteFuture:
        """Calls it there. The future's `result()` is what it returns."""
        return self._client.shared_executor(self._policy).submit(self._function, *args, **kwargs)

    def map(self, *iterables: Iterable[Any], **options: Any) -> Iterator[R]:
        """Calls it there for each item: as `Executor.map`."""
        return self._client.shared_executor(self._policy).map(self._function, *iterables, **options)

    def __reduce__(self) -> tuple[type[functools.partial[R]], tuple[Callable[P, R]]]:
        """Where it runs, there is no client: it goes as the function that it is."""
        return functools.partial, (self._function,)


def remote(client: Client, **policy: Any) -> Callable[[Callable[P, R]], RemoteFunction[P, R]]:
    """Makes a function that can run on the service of `client`.

    Example:
        @remote(client, deadline_s=60, retries=3)
        def simulate(seed): ...

        simulate(1)                        # here
        simulate.submit(1).result()        # there
        list(simulate.map(range(1000)))    # there, all at once
    """

    def decorate(function: Callable[P, R]) -> RemoteFunction[P, R]:
        return RemoteFunction(function, client, policy)

    return decorate
