"""The error tree: two lines for people, and the same type on the other side of a socket."""

from __future__ import annotations

import subprocess
import sys
import traceback
from typing import TYPE_CHECKING

import pytest
from telehelper import errors
from telehelper.errors import (
    CidrConflict,
    ClusterError,
    ConnectTimeout,
    HelperLost,
    KubeconfigError,
    LocalProtocolError,
    SudoDenied,
    TelemagicError,
    from_wire,
)

if TYPE_CHECKING:
    from collections.abc import Generator


def tree(root: type[TelemagicError] = TelemagicError) -> list[type[TelemagicError]]:
    # Only the product's: tests may derive their own.
    children = [cls for cls in root.__subclasses__() if cls.__module__ == errors.__name__]
    return [root, *(cls for child in children for cls in tree(child))]


def test_slugs_are_unique() -> None:
    slugs = [cls.slug for cls in tree()]
    assert len(set(slugs)) == len(slugs)


@pytest.mark.parametrize("cls", tree())
def test_every_error_is_in_the_drawing_and_crosses_a_socket(cls: type[TelemagicError]) -> None:
    assert cls.__name__ in (errors.__doc__ or "")
    error = cls("what", hint="do", fact="value")
    again = from_wire(error.slug, error.message, error.hint, error.data)
    assert type(again) is cls
    assert (again.message, again.hint, again.data) == ("what", "do", {"fact": "value"})


def test_a_script_s_traceback_says_what_to_do() -> None:
    error = KubeconfigError("no context 'demmo'", hint="did you mean 'demo'?")
    error.add_note("said by a caller")
    assert "".join(traceback.format_exception_only(error)) == (
        "telehelper.errors.KubeconfigError: no context 'demmo'\n  try: did you mean 'demo'?\nsaid by a caller\n"
    )
    assert "".join(traceback.format_exception_only(TelemagicError("all"))) == (
        "telehelper.errors.TelemagicError: all\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", "from telehelper import errors as e; raise e.UsageError('what', hint='do')"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr.endswith("UsageError: what\n  try: do\n")


def test_an_unknown_slug_keeps_its_text() -> None:
    again = from_wire("of-a-newer-version", "what", "do", {})
    assert type(again) is TelemagicError
    assert (str(again), again.hint) == ("what", "do")


# A kubeconfig is read before anything happens; what is wrong with it is told with what to do about just that.
@pytest.mark.parametrize(
    "cls", [cls for cls in (HelperLost, *tree(ClusterError)) if cls not in (ClusterError, KubeconfigError)]
)
def test_what_can_happen_at_any_moment_always_has_a_hint(cls: type[TelemagicError]) -> None:
    assert cls("it has just gone").hint


EVIL = "a\x1b]0;x\x07b\nc\u202ed\x9be\udc80"


def test_what_others_said_cannot_steer_a_terminal_even_in_a_traceback() -> None:
    error = ClusterError(f"the API server says: {EVIL}", hint=f"ask {EVIL}")
    shown = "".join(traceback.format_exception(error))
    what, hint = shown.rstrip("\n").split("\n")
    assert what.isprintable()
    assert hint == f"  try: {error.hint}"
    assert error.hint == r"ask a\x1b]0;x\x07b\nc\u202ed\x9be\udc80"
    assert all(text.isprintable() for text in (*str(error).split("\n"), error.message, *error.args))


def test_printable_text_stays_as_it_is() -> None:
    text = "Grüße, 東京: \u20ac 5"
    assert errors.printable(text) is text


@pytest.fixture
def plain() -> Generator[None, None, None]:
    """As in a process that knows nothing of notebooks, whatever was imported before."""
    was = errors._look[0]
    errors.use_look(errors.PlainLook())
    yield
    errors.use_look(was)


@pytest.mark.usefixtures("plain")
def test_a_notebook_sees_two_lines() -> None:
    assert SudoDenied("refused")._repr_mimebundle_() == {
        "text/plain": "\n".join(SudoDenied("refused")._render_traceback_())
    }
    assert SudoDenied("refused")._render_traceback_() == [
        "SudoDenied: refused",
        "  try: run the cell again and type your login password; an empty line cancels",
    ]


@pytest.mark.usefixtures("plain")
def test_without_a_hint_it_sees_one() -> None:
    assert TelemagicError("what")._render_traceback_() == ["TelemagicError: what"]


@pytest.mark.usefixtures("plain")
def test_our_own_bugs_keep_the_traceback() -> None:
    try:
        raise LocalProtocolError("a bug")
    except LocalProtocolError as error:
        lines = error._render_traceback_()
    assert lines[0].startswith("Traceback")
    assert any("raise LocalProtocolError" in line for line in lines)
    assert lines[-1].endswith("LocalProtocolError: a bug")


class Shouting:
    def lines(self, error: TelemagicError) -> list[str]:
        return [error.message.upper()]

    def bundle(self, error: TelemagicError) -> dict[str, str]:
        return {"text/plain": error.message.upper()}


@pytest.mark.usefixtures("plain")
def test_another_look_is_used_by_all_errors() -> None:
    errors.use_look(Shouting())
    assert TelemagicError("what")._render_traceback_() == ["WHAT"]
    assert SudoDenied("refused")._repr_mimebundle_() == {"text/plain": "REFUSED"}


def test_a_conflict_names_both_prefixes_and_the_interface() -> None:
    error = CidrConflict.of("10.0.0.0/8", "10.1.0.0/16", "docker0")
    assert error.data == {"wanted": "10.0.0.0/8", "existing": "10.1.0.0/16", "device": "docker0"}
    assert "10.0.0.0/8 overlaps 10.1.0.0/16 on docker0" in str(error)


def test_a_conflict_says_what_the_interface_is_and_what_can_be_done() -> None:
    vpn = CidrConflict.of("10.0.0.0/8", "10.1.0.0/16", "tun0", what="a VPN")
    assert "on tun0 (a VPN); nothing was changed" in str(vpn)
    assert "take" in vpn.hint
    bridge = CidrConflict.of("10.0.0.0/8", "10.2.0.0/16", "docker0", why="this machine is attached to it")
    assert bridge.data["why"] == "this machine is attached to it"
    assert "take" not in bridge.hint
    both = CidrConflict.joined([vpn, bridge])
    assert both.data == vpn.data
    assert str(both) == (
        "the cluster's 10.0.0.0/8 overlaps 10.1.0.0/16 on tun0 (a VPN); "
        "10.0.0.0/8 overlaps 10.2.0.0/16 on docker0, this machine is attached to it; nothing was changed"
    )
    assert "exit node" in CidrConflict.of("10.0.0.0/8", "0.0.0.0/0", "tailscale0").hint


def test_a_connect_timeout_is_a_timeout_for_those_who_do_not_know_us() -> None:
    assert isinstance(ConnectTimeout("late"), TimeoutError)
