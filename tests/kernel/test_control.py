from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from typing import TYPE_CHECKING

import pytest
from telehelper import messages, observing
from telehelper.errors import CidrConflict, ControlError, HelperLost, HelperRefused

from telemagic import control
from telemagic.control import ControlClient
from telemagic.control_fake import STATUS, FakeDatapath, Script

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


class Heard:
    """What a client was told."""

    def __init__(self) -> None:
        self.events: list[messages.Message] = []
        self.lost: list[str] = []


@contextlib.asynccontextmanager
async def pair(
    path: Path, script: Script | None = None
) -> AsyncIterator[tuple[FakeDatapath, ControlClient, Heard]]:
    fake = FakeDatapath(path, script)
    await fake.start()
    heard = Heard()
    try:
        client = await ControlClient.open(path, on_event=heard.events.append, on_lost=heard.lost.append)
        try:
            yield fake, client, heard
        finally:
            await client.close()
    finally:
        await fake.close()


def test_greets_asks_and_leaves(tmp_path: Path) -> None:
    async def main() -> None:
        async with pair(tmp_path / "s") as (fake, client, heard):
            assert client.welcome == messages.Welcome(messages.PROTOCOL_VERSION, os.getpid(), connected=False)
            assert client.peer_pid == os.getpid()
            assert await client.request(messages.GetStatus(), messages.Status) == STATUS
            assert fake.requests == [
                messages.Hello(messages.PROTOCOL_VERSION, os.getpid()),
                messages.GetStatus(),
            ]
        async with asyncio.timeout(5):
            await fake.over.wait()  # the last kernel left
        assert heard.lost == []
        with pytest.raises(HelperLost, match="this kernel has closed"):
            await client.request(messages.GetStatus(), messages.Status)
        await client.close()  # again

    asyncio.run(main())


def test_answers_find_their_requests(tmp_path: Path) -> None:
    async def main() -> None:
        async with pair(tmp_path / "s") as (_, client, _heard):
            answers = await asyncio.gather(
                client.request(observing.GetFlows(), observing.FlowTable),
                client.request(messages.GetRoutes(), messages.RouteTable),
                client.request(messages.GetStatus(), messages.Status),
            )
            assert [type(answer).__name__ for answer in answers] == ["FlowTable", "RouteTable", "Status"]

    asyncio.run(main())


def test_failure_keeps_its_type(tmp_path: Path) -> None:
    async def main() -> None:
        script = Script(failure=CidrConflict.of("10.0.0.0/8", "10.1.0.0/16", "wg0"))
        async with pair(tmp_path / "s", script) as (_, client, heard):
            with pytest.raises(CidrConflict) as caught:
                await client.request(messages.Connect("c", "demo", "", 5.0), messages.Status)
            assert caught.value.data["device"] == "wg0"
            assert messages.PhaseChanged("TUN", "started", "", 0.0) in heard.events

    asyncio.run(main())


def test_unexpected_answer(tmp_path: Path) -> None:
    async def main() -> None:
        async with pair(tmp_path / "s") as (_, client, _heard):
            with pytest.raises(ControlError, match="answered GetFlows with FlowTable"):
                await client.request(observing.GetFlows(), messages.Status)

    asyncio.run(main())


def test_end_reaches_every_waiting_request_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with pair(tmp_path / "s", Script(hang_at="TUN")) as (fake, client, heard):
            waiting = [
                asyncio.ensure_future(client.request(messages.Connect("c", "", "", 5.0), messages.Status))
                for _ in range(2)
            ]
            async with asyncio.timeout(5):
                while len(fake.requests) < 3:  # noqa: ASYNC110  # the fake keeps a list, no event
                    await asyncio.sleep(0.005)
            await fake.say(messages.Failed("helper-lost", "netd was killed"))
            await fake.close()
            for error in await asyncio.gather(*waiting, return_exceptions=True):
                assert isinstance(error, HelperLost)
                assert error.message == "netd was killed"  # its last words say more than the end itself
            assert heard.lost == ["netd was killed"]
            with pytest.raises(HelperLost, match="netd was killed"):
                await client.request(messages.GetStatus(), messages.Status)

    asyncio.run(main())


def test_a_listener_s_fault_is_told_and_answers_go_on(tmp_path: Path) -> None:
    async def main() -> None:
        told: list[BaseException | None] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: told.append(context.get("exception")))
        async with pair(tmp_path / "s") as (fake, client, heard):
            client._on_event = lambda _: 1 / 0  # type: ignore[assignment,return-value]
            await fake.say(messages.TunnelChanged(up=False, reason="gone"))
            assert (await client.request(messages.GetStatus(), messages.Status)).context == "demo"
            assert [type(error) for error in told] == [ZeroDivisionError]
            client._on_event = heard.events.append
            await fake.say(messages.TunnelChanged(up=True, reason=""))
            await fake.close()
            async with asyncio.timeout(5):
                while not heard.lost:  # noqa: ASYNC110  # as above
                    await asyncio.sleep(0.005)
            assert heard.events == [messages.TunnelChanged(up=True, reason="")]  # before the end

    asyncio.run(main())


def test_end_without_last_words(tmp_path: Path) -> None:
    async def main() -> None:
        async with pair(tmp_path / "s") as (fake, _client, heard):
            await fake.close()
            async with asyncio.timeout(5):
                while not heard.lost:  # noqa: ASYNC110  # as above
                    await asyncio.sleep(0.005)
            assert heard.lost == [f"the helper (pid {os.getpid()}) has ended"]

    asyncio.run(main())


def test_other_version(tmp_path: Path) -> None:
    async def main() -> None:
        with pytest.raises(ControlError, match="speaks version 9, this kernel ") as caught:
            async with pair(tmp_path / "s", Script(version=9)):
                pass
        assert "restart" in caught.value.hint

    asyncio.run(main())


def test_mute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        with pytest.raises(HelperLost, match="does not answer"):
            async with pair(tmp_path / "s", Script(mute=True)):
                pass

    monkeypatch.setattr(control, "HELLO_PATIENCE", 0.05)
    asyncio.run(main())


def test_nonsense_ends_the_connection(tmp_path: Path) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read()
        writer.close()

    async def main() -> None:
        server = await asyncio.start_unix_server(talk, tmp_path / "s")
        async with server:
            with pytest.raises(HelperLost, match="sent nonsense: a control message of 1213486160 bytes"):
                await ControlClient.open(tmp_path / "s", on_event=print, on_lost=print)

    asyncio.run(main())


def test_nobody_listens(tmp_path: Path) -> None:
    async def main() -> None:
        with pytest.raises(FileNotFoundError):
            await ControlClient.open(tmp_path / "s", on_event=print, on_lost=print)

    asyncio.run(main())


def test_foreign_peer_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    near, far = socket.socketpair()
    with near, far:
        control.check_peer(near, tmp_path)
        uid = os.getuid()
        monkeypatch.setattr(os, "geteuid", lambda: uid + 1)
        with pytest.raises(HelperRefused, match=f"belongs to uid {uid}, not to you"):
            control.check_peer(near, tmp_path)
