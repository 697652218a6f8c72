"""A connection's secrets are nowhere but in the memory of who needs them: a real connect, looked at from all sides."""

from __future__ import annotations

import contextlib
import os
import threading
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.e2e import inside
from tests.e2e.inside import wait_until

if TYPE_CHECKING:
    from telemagic.demo.client import Demo

SPEAKING_LOUDLY = """
from tests.e2e.test_secrets import connect_and_tell
connect_and_tell({folder!r})
"""


def token_of(kubeconfig: Path) -> str:
    """The secret of the kubeconfig's user."""
    (user,) = yaml.safe_load(kubeconfig.read_text())["users"]
    token = str(user["user"]["token"])
    assert len(token) >= 16, "short enough to be met by chance"
    return token


def shown(error: BaseException) -> str:
    """A traceback as the chattiest tools show it: with all local variables."""
    told = traceback.TracebackException.from_exception(error, capture_locals=True)
    return "".join(told.format()) + repr(error) + repr(vars(error))


def connect_and_tell(folder: str) -> None:
    """Connect, print everything there is to be seen of it, and wait until somebody has looked round."""
    from telehelper.errors import TelemagicError

    import telemagic
    from telemagic.session import session

    here = Path(folder)
    with telemagic.connect() as tele:
        import urllib.request

        urllib.request.urlopen(telemagic.url("http://catalog.shop/products"), timeout=20).read()
        frames: list[Any] = [tele.flows(), tele.routes(), tele.services(), tele.pods()]
        for frame in frames:
            print(frame.to_csv(), frame.attrs)  # noqa: T201
        for thing in (
            tele,
            tele.status,
            tele.status.to_dict(),
            vars(session()),
            tele.status._repr_mimebundle_(),
        ):
            print(repr(thing))  # noqa: T201
        here.joinpath("connected").touch()
        assert wait_until(here.joinpath("looked").exists, 60.0)
    failing = [{"context": "nowhere"}, {"via": "manager", "manager_namespace": "nowhere"}]
    wrong = with_a_wrong_token(here)
    for options in (*failing, {"kubeconfig": str(wrong)}):
        try:
            telemagic.connect(timeout=20, **options)
        except TelemagicError as error:
            print(shown(error))  # noqa: T201


def with_a_wrong_token(folder: Path) -> Path:
    """Write a kubeconfig whose user the API server does not know."""
    document = yaml.safe_load(Path(os.environ["KUBECONFIG"]).read_text())
    document["users"][0]["user"]["token"] += "-and-wrong"
    path = folder / "wrong"
    path.write_text(yaml.safe_dump(document))
    return path


def told_by_processes() -> dict[str, bytes]:
    """What every process shows of itself: its arguments and its environment."""
    found: dict[str, bytes] = {}
    for process in Path("/proc").glob("[0-9]*"):
        for name in ("cmdline", "environ"):
            with contextlib.suppress(OSError):  # it has gone
                found[f"{process}/{name}"] = (process / name).read_bytes()
    return found


@pytest.mark.netns
def test_a_kubeconfigs_token_is_shown_nowhere(cluster: Demo, tmp_path: Path) -> None:
    token = token_of(Path(cluster.kubeconfig))
    seen: dict[str, bytes] = {}

    def look() -> None:
        if wait_until((tmp_path / "connected").exists, 60.0):
            seen.update(told_by_processes())
        (tmp_path / "looked").touch()

    looking = threading.Thread(target=look)
    looking.start()
    printed = inside.run(cluster, SPEAKING_LOUDLY.format(folder=str(tmp_path)), timeout=120)
    looking.join()
    commands = b"\n".join(text for name, text in seen.items() if name.endswith("cmdline"))
    for part in (b"telehelper.netd", b"telehelper.datapath", b"telehelper.manager"):
        assert part in commands, "it was looked at while all of them ran"
    assert [name for name, text in seen.items() if token.encode() in text] == []
    assert "catalog" in printed
    assert "Traceback" in printed
    assert token not in printed
