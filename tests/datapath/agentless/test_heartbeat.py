"""A dead API server is found out in time, a living one measured."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from telehelper.datapath.agentless import heartbeat as heartbeat_module
from telehelper.datapath.agentless.heartbeat import (
    DEAD_AFTER,
    INTERVAL,
    PROBE_TIMEOUT,
    RETRY,
    TIMEOUT,
    Heartbeat,
)
from telehelper.errors import ApiServerUnavailable, ClusterError, CredentialsRefused

from tests.datapath.waiting import until

GONE = ApiServerUnavailable("API server https://x cannot be reached: connection refused")


class Api:
    """Answers /version after `took` seconds of a clock of its own, or fails; silent if told so."""

    def __init__(self) -> None:
        self.now = 100.0
        self.took = 0.02
        self.error: ClusterError | None = None
        self.is_silent = False
        self.asked = 0

    async def get(self, path: str, **_: str) -> dict[str, Any]:
        assert path == "/version"
        self.asked += 1
        if self.is_silent:
            await asyncio.Event().wait()
        self.now += self.took
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        return {}

    def clock(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("INTERVAL", "TIMEOUT", "RETRY"):
        monkeypatch.setattr(heartbeat_module, name, 0.005)


def run(test: Any) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await test()

    asyncio.run(bounded())


async def until_asked(api: Api, times: int) -> None:
    await until(lambda: api.asked >= times, f"question {times}")


def test_the_promise_is_kept_by_the_numbers() -> None:
    # An answer; the next question, which takes its whole time; another one, which takes it too.
    assert DEAD_AFTER <= INTERVAL + TIMEOUT + RETRY + TIMEOUT <= 10
    assert INTERVAL + TIMEOUT < DEAD_AFTER, "a single lost answer is no end"
    assert PROBE_TIMEOUT < DEAD_AFTER


def test_round_trips_are_smoothed_and_the_least_is_kept() -> None:
    async def test() -> None:
        api = Api()
        heartbeat = Heartbeat(api, api.clock)
        assert heartbeat.rtt is None
        task = asyncio.create_task(heartbeat.run())
        await until_asked(api, 2)
        assert heartbeat.rtt == pytest.approx(0.02)
        api.took = 0.1
        await until_asked(api, 4)
        assert 0.02 < (heartbeat.rtt or 0) < 0.1
        assert heartbeat.min_rtt == pytest.approx(0.02)
        task.cancel()

    run(test)


@pytest.mark.parametrize("why", ["refused", "silent"])
def test_an_api_server_without_a_sign_of_life_is_dead(why: str) -> None:
    async def test() -> None:
        api = Api()
        heartbeat = Heartbeat(api, api.clock)
        task = asyncio.create_task(heartbeat.run())
        await until_asked(api, 1)
        api.error, api.is_silent = GONE, why == "silent"
        await until_asked(api, 5)
        assert not task.done(), "not for one failure"
        api.now += DEAD_AFTER
        assert await task == ("the API server does not answer" if why == "silent" else GONE.message)

    run(test)


def test_bytes_of_a_flow_are_a_sign_of_life() -> None:
    async def test() -> None:
        api = Api()
        api.error = GONE
        heartbeat = Heartbeat(api, api.clock)
        task = asyncio.create_task(heartbeat.run())
        for number in range(1, 6):
            await until_asked(api, number)
            api.now += DEAD_AFTER - 1
            heartbeat.heard()
        assert not task.done()
        api.now += DEAD_AFTER
        await task

    run(test)


@pytest.mark.parametrize("error", [CredentialsRefused("forbidden"), ClusterError("no such path")])
def test_a_refusal_is_an_answer(error: ClusterError) -> None:
    async def test() -> None:
        api = Api()
        api.error = error
        heartbeat = Heartbeat(api, api.clock)
        task = asyncio.create_task(heartbeat.run())
        await until_asked(api, 2)
        api.now += DEAD_AFTER
        await until_asked(api, 4)
        assert not task.done()
        assert heartbeat.rtt is not None
        task.cancel()

    run(test)


def test_doubt_asks_at_once_and_has_less_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat_module, "INTERVAL", 1000.0)

    async def test() -> None:
        api = Api()
        heartbeat = Heartbeat(api, api.clock)
        task = asyncio.create_task(heartbeat.run())
        await until_asked(api, 1)
        await asyncio.sleep(0.01)
        heartbeat.doubt()
        await until_asked(api, 2)
        assert not task.done(), "it answered"
        api.error = GONE
        heartbeat.doubt()
        await until_asked(api, 3)
        api.now += PROBE_TIMEOUT
        assert await task == GONE.message

    run(test)
