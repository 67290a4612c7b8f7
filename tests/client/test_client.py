"""The verbs, with and without asyncio, and decorated functions."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from uuid import UUID

import pytest

from everythingfaas.client import AsyncClient, Client, config, remote
from everythingfaas.errors import ConfigurationError, Refused, Unreachable
from tests.live import Appliance, free_port, until


def double(x: int) -> int:
    return 2 * x


def slow() -> None:
    time.sleep(60)


def test_one_after_the_other(client: Client):
    task = client.submit(double, 21)
    assert client.result(task) == 42
    assert client.status(task) == "COMPLETED"
    info = client.task(task)
    assert (info.function.name, info.has_ended, [one.outcome for one in info.attempts]) == (
        "double",
        True,
        ["RETURNED"],
    )
    assert client.tasks("COMPLETED", limit=1)[0].id == UUID(task)
    assert client.result(client.retry(task)) == 42
    assert client.readiness().status == "ok"
    until(lambda: client.workers().workers)
    assert client.workers().dispatchers[0].mode == "push"


def test_by_name_and_by_id(client: Client):
    identifier = client.register(double, name="by name", retries=2)
    assert client.result(client.submit("by name", 4)) == 8
    assert client.result(client.submit(identifier, 5)) == 10
    assert client.result(client.submit(UUID(identifier), 6)) == 12
    assert [found.id for found in client.functions("by name", 1)] == [UUID(identifier)]
    assert client.functions("by name")[0].policy["retries"] == 2
    with pytest.raises(Refused, match="no function called 'no such name'"):
        client.submit("no such name")


def test_what_was_raised(client: Client):
    task = client.submit(double)
    with pytest.raises(TypeError) as raised:
        client.result(task)
    assert "missing 1 required" in str(raised.value.__cause__)


def test_waiting_and_cancelling(client: Client):
    task = client.submit(slow)
    with pytest.raises(TimeoutError):
        client.result(task, timeout=0.3)
    assert client.cancel(task, wait=10).state == "CANCELLED"


def test_many(client: Client):
    batch = client.submit_many(double, [(x,) for x in range(30)], name="many")
    assert len(batch) == 30
    assert list(batch.results(20)) == [2 * x for x in range(30)]
    assert batch.wait(5)
    empty = client.submit_many(double, [])
    assert list(empty.results()) == []
    sleeps = client.submit_many(slow, [()] * 4)
    assert batch.cancel().cancelled == []
    off = sleeps.cancel(force=True)
    assert len(off.cancelled) + len(off.being_cancelled) == 4
    assert sleeps.wait(10)
    assert all(future.cancelled() for future in sleeps.futures)


def test_there_is_nothing(client: Client):
    nothing = "00000000-0000-7000-8000-000000000000"
    for ask in (client.status, client.result, client.cancel, client.retry, client.batch, client.task):
        with pytest.raises(Refused) as raised:
            ask(nothing)
        assert raised.value.status == 404
    with pytest.raises(Refused):
        client.batch("no such batch")


def test_the_same_for_asyncio(faas: Appliance):
    async def main() -> None:
        async with AsyncClient(faas.url) as client:
            tasks = await asyncio.gather(*(client.submit(double, x) for x in range(5)))
            assert await asyncio.gather(*map(client.result, tasks)) == [0, 2, 4, 6, 8]
            assert await client.status(tasks[0]) == "COMPLETED"
            added = await client.submit_many(lambda x: 1 / x, [(x,) for x in range(3)], name="fractions")
            values = {index: value async for index, value in client.results(added.batch_id)}
            assert (values[1], values[2]) == (1.0, 0.5)
            assert isinstance(values[0], ZeroDivisionError)
            assert (await client.batch("fractions")).size == 3
            assert [found.name for found in await client.batches("fractions")] == ["fractions"]
            assert (await client.readiness()).status == "ok"
            assert (await client.workers()).dispatchers
            task = await client.submit(slow)
            assert (await client.cancel(task, wait=10)).state == "CANCELLED"
            again = await client.retry(task)
            assert (await client.task(again)).retry_of == UUID(task)
            assert (await client.cancel(again, wait=10)).state == "CANCELLED"
            assert await client.tasks(limit=1)
            assert await client.register(double)
            assert await client.functions(limit=1)
            assert "message" in await client.json("GET", "/")

    asyncio.run(main())


def test_both_have_the_same_verbs():
    ours, theirs = ({name for name in dir(kind) if not name.startswith("_")} for kind in (Client, AsyncClient))
    assert ours - {"executor", "shared_executor"} == theirs - {"results"}


def test_decorated_functions(faas: Appliance):
    with Client(faas.url) as client:

        @remote(client, deadline_s=20)
        def inner(x: int) -> int:
            return x + 1

        @remote(client)
        def outer(x: int) -> int:
            """Calls the other one."""
            return inner(x) * 10

        assert outer(1) == 20, "here"
        assert outer.__doc__ == "Calls the other one."
        assert outer.submit(2).result(20) == 30
        assert list(inner.map(range(5))) == [1, 2, 3, 4, 5]


def test_nobody_there():
    with Client(f"http://127.0.0.1:{free_port()}", patience_s=0.2) as client:
        for ask in (client.readiness, client.workers, lambda: client.submit(double, 1)):
            with pytest.raises(Unreachable):
                ask()


def test_where_the_service_is(tmp_path):
    environ = {"XDG_CONFIG_HOME": str(tmp_path)}
    assert config.endpoint(None, None, environ) == config.Endpoint(config.DEFAULT_URL)
    file = config.save({"url": "http://lab:8000", "token": "saved"}, environ)
    assert file.stat().st_mode & 0o777 == 0o600
    assert config.endpoint(None, None, environ) == config.Endpoint("http://lab:8000", "saved")
    assert config.endpoint("http://lab:8000/", None, environ).token == "saved"
    assert config.endpoint("http://other:8000", None, environ).token is None, "it is not sent to others"
    environ["FAAS_URL"] = "http://env:1"
    assert config.endpoint(None, None, environ) == config.Endpoint("http://env:1", None)
    environ["FAAS_TOKEN"] = "environ"
    assert config.endpoint(None, None, environ) == config.Endpoint("http://env:1", "environ")
    assert config.endpoint("https://arg", "arg", environ) == config.Endpoint("https://arg", "arg")
    assert "environ" not in repr(config.endpoint(None, None, environ)), "tokens are not shown"
    file.write_text("{")
    with pytest.raises(ConfigurationError, match=r"config\.json"):
        config.endpoint(None, None, {"XDG_CONFIG_HOME": str(tmp_path)})
    with pytest.raises(ConfigurationError, match="no address"):
        config.endpoint("lab:8000", "x", environ)
    assert dataclasses.is_dataclass(config.Endpoint)
