"""The client: functions of yours, run by a service, as if they ran here.

    Executor          a `concurrent.futures.Executor`; what most programs want
    Client            one call for each thing that the service can do
    AsyncClient       the same for asyncio
    remote            a decorator: `@remote(client)` makes a function that can run there
    Batch             tasks that were sent together, in this process or in a former one

The parts, from the inside out:

    flows             what is said in which order, and when it is said again: generators that do no I/O
    http              drives them, with httpx, on a thread or on an event loop
    api, aio          the verbs on top of it
    payloads, results values to bytes and back
    inbox             results that come in by themselves, and the futures that wait for them
    executor          gathers calls into batches, and sends them
"""

from __future__ import annotations

from everythingfaas.client.aio import AsyncClient
from everythingfaas.client.api import Client
from everythingfaas.client.batch import Batch
from everythingfaas.client.decorator import RemoteFunction, remote
from everythingfaas.client.executor import Executor
from everythingfaas.client.inbox import RemoteFuture

__all__ = ["AsyncClient", "Batch", "Client", "Executor", "RemoteFunction", "RemoteFuture", "remote"]
