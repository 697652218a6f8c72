"""The real sudo, for an ordinary user who exists only in the test's own namespace; see ordinary.py, scenarios.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ORDINARY = Path(__file__).with_name("ordinary.py")
NOPASSWD = "teletest ALL=(root) NOPASSWD: PYTHON -I -m telehelper.netd\n"
PASSWORD = "teletest ALL=(root) PYTHON -I -m telehelper.netd\n"
COPY = 'teletest ALL=(root) ALL\nteletest ALL=(root) NOPASSWD: /usr/local/libexec/telemagic/netd ""\n'
NOTHING = "nobody ALL=(root) /bin/true\n"

pytestmark = pytest.mark.sudo


def play(name: str, sudoers: str, *before: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        str(ORDINARY),
        sudoers,
        *before,
        sys.executable,
        "-m",
        "tests.netd_sudo.scenarios",
        name,
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL
    )
    print(done.stdout)  # noqa: T201  # the times
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize("defaults", ["Defaults use_pty\n", "Defaults !use_pty\n"])
@pytest.mark.parametrize("name", ["without_a_password", "with_an_interface"])
def test_sudo_without_a_password_asks_nobody(name: str, defaults: str) -> None:
    play(name, defaults + NOPASSWD)


@pytest.mark.parametrize(
    "name",
    [
        "right_password",
        "wrong_then_right_password",
        "always_wrong_password",
        "cancelled_by_an_empty_line",
        "cancelled_by_nobody_there",
        "interrupted_while_asking",
        "a_failing_prompt_is_the_callers_error",
        "nobody_to_ask",
    ],
)
def test_sudo_with_a_password(name: str) -> None:
    play(name, PASSWORD)


def test_a_password_later_than_sudos_timeout() -> None:
    play("later_than_sudos_timeout", "Defaults passwd_timeout=0.02\n" + PASSWORD)  # minutes


def test_a_prompt_that_sudo_gives_up() -> None:
    play("given_up_by_sudo", PASSWORD)


def test_a_copy_that_only_root_can_change() -> None:
    play("the_root_owned_copy", COPY)


def test_without_pty_too() -> None:
    play("wrong_then_right_password", "Defaults !use_pty\n" + PASSWORD)


def test_a_user_whom_sudo_does_not_know() -> None:
    play("not_in_sudoers", NOTHING)


def test_no_new_privs() -> None:
    play("no_new_privs", NOPASSWD, "setpriv", "--no-new-privs")
