"""The connections to Redis: quick when it is there, quicker when it is not."""

from __future__ import annotations

import asyncio
import time

import hiredis
import pytest

from api.redis_commands import TIMEOUT_S, Address, RedisUnavailable
from api.redis_link import RedisLink, Subscription
from everythingfaas.errors import ConfigurationError
from tests.asgi import until
from tests.redis_fixture import Valkey


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("unix:///run/redis.sock", Address(path="/run/redis.sock")),
        ("unix:///run/a%20b.sock?db=3", Address(path="/run/a b.sock", db=3)),
        ("unix://:secret@/run/redis.sock", Address(path="/run/redis.sock", password="secret")),
        ("redis://", Address()),
        ("redis://cache", Address(host="cache")),
        ("redis://cache:7000/2", Address(host="cache", port=7000, db=2)),
        ("redis://[::1]:7000", Address(host="::1", port=7000)),
        ("rediss://me:p%40ss@cache", Address(host="cache", tls=True, user="me", password="p@ss")),
    ],
)
def test_urls(url, address):
    assert Address.parse(url) == address


@pytest.mark.parametrize("url", ["http://x:secret@y", "redis://x:port", "redis://:secret@x/db", "unix:///x?db=a", ""])
def test_other_urls_are_refused_without_their_password(url):
    with pytest.raises(ConfigurationError) as caught:
        Address.parse(url)
    assert "secret" not in str(caught.value)


def test_greetings():
    assert Address().greeting() == [("PING",)]
    assert Address(user="me", password="p", db=1).greeting() == [("AUTH", "me", "p"), ("SELECT", 1), ("PING",)]
    assert Address(password="p").greeting() == [("AUTH", "p"), ("PING",)]


def linked(valkey: Valkey, test, url: str | None = None) -> None:
    async def main() -> None:
        link = RedisLink(url or valkey.url, asyncio.get_running_loop())
        try:
            await test(link)
        finally:
            await link.close()

    asyncio.run(main())


def test_calls_of_one_turn_are_one_pipeline(valkey: Valkey):
    async def test(link: RedisLink) -> None:
        await until(lambda: link.connected)
        link.send([("SET", "n", 0)])
        assert await asyncio.gather(*(link.call(("INCR", "n")) for _ in range(1000))) == list(range(1, 1001))
        assert await link.call(("GET", "n")) == b"1000"
        assert await link.call(("ECHO", bytes(1_000_000))) == bytes(1_000_000)

    linked(valkey, test)


def test_a_database_is_selected(valkey: Valkey):
    async def test(link: RedisLink) -> None:
        await until(lambda: link.connected)
        await link.call(("SET", "here", 1))

    linked(valkey, test, valkey.url + "?db=5")
    with valkey.client() as client:
        assert client.exists("here") == 0
        client.select(5)
        assert client.exists("here") == 1


def test_what_the_server_refuses_is_raised_and_costs_nobody_else(valkey: Valkey, caplog):
    async def test(link: RedisLink) -> None:
        await until(lambda: link.connected)
        link.send([("NONSENSE",)])
        refused, answered = await asyncio.gather(link.call(("GET",)), link.call(("PING",)), return_exceptions=True)
        assert isinstance(refused, hiredis.ReplyError)
        assert answered == b"PONG"

    linked(valkey, test)
    assert "NONSENSE" in caplog.text


def test_while_there_is_none_calls_fail_at_once(valkey: Valkey):
    valkey.kill()

    async def test(link: RedisLink) -> None:
        await asyncio.sleep(0.05)
        began = time.perf_counter()
        with pytest.raises(RedisUnavailable):
            await link.call(("PING",))
        link.send([("PING",)])
        assert time.perf_counter() - began < 0.05
        assert not link.connected

    linked(valkey, test)


def test_it_connects_again_when_the_server_is_back(valkey: Valkey):
    async def test(link: RedisLink) -> None:
        await until(lambda: link.connected)
        for _ in range(2):
            waiting = asyncio.ensure_future(link.call(("BLPOP", "nothing", 10)))
            await asyncio.sleep(0.05)
            await asyncio.to_thread(valkey.kill)
            with pytest.raises(RedisUnavailable):
                await waiting
            await until(lambda: not link.connected)
            await asyncio.to_thread(valkey.start)
            await until(lambda: link.connected)
            assert await link.call(("SET", "k", "v"))

    linked(valkey, test)


def test_a_server_that_hangs_is_given_up(valkey: Valkey):
    async def test(link: RedisLink) -> None:
        await until(lambda: link.connected)
        valkey.freeze()
        try:
            began = time.monotonic()
            outcomes = await asyncio.gather(*(link.call(("PING",)) for _ in range(10)), return_exceptions=True)
            assert {type(outcome) for outcome in outcomes} == {RedisUnavailable}
            assert TIMEOUT_S <= time.monotonic() - began < TIMEOUT_S + 1
            with pytest.raises(RedisUnavailable, match="not connected"):
                await link.call(("PING",))
        finally:
            valkey.thaw()
        await until(lambda: link.connected)
        assert await link.call(("PING",))

    linked(valkey, test)


def test_a_wrong_password_is_no_connection(valkey: Valkey, caplog):
    async def test(link: RedisLink) -> None:
        await asyncio.sleep(0.2)
        assert not link.connected

    linked(valkey, test, valkey.url.replace("unix://", "unix://:wrong@"))
    assert "cannot be reached" in caplog.text
    assert "wrong" not in caplog.text.replace("WRONGPASS", "")


def test_somebody_who_speaks_no_redis(tmp_path):
    async def main() -> None:
        async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            writer.close()

        server = await asyncio.start_unix_server(speak, tmp_path / "sock")
        link = RedisLink(f"unix://{tmp_path}/sock", asyncio.get_running_loop())
        await asyncio.sleep(0.2)
        assert not link.connected
        await link.close()
        server.close()
        await server.wait_closed()

    asyncio.run(main())


def test_a_subscription_comes_back_and_says_when(valkey: Valkey):
    async def main() -> None:
        heard: list[bytes] = []
        changes: list[bool] = []
        subscription = Subscription(
            valkey.url,
            asyncio.get_running_loop(),
            "channel",
            on_message=heard.append,
            on_change=lambda: changes.append(subscription.connected),
        )
        try:
            await until(lambda: changes == [True])
            with valkey.client() as client:
                client.publish("channel", b"one")
            await until(lambda: heard == [b"one"])
            await asyncio.to_thread(valkey.kill)
            await until(lambda: changes == [True, False])
            await asyncio.to_thread(valkey.start)
            await until(lambda: changes == [True, False, True])
            with valkey.client() as client:
                client.publish("channel", b"two" * 100_000)
            await until(lambda: heard == [b"one", b"two" * 100_000])
        finally:
            await subscription.close()

    asyncio.run(main())
