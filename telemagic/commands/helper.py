"""`%tele helper`."""

from __future__ import annotations

import os
import pwd
import re
from typing import TYPE_CHECKING

from telehelper.errors import HelperRefused

from telemagic import helper_copy
from telemagic.privileged import run_as_root
from telemagic.results import Text

if TYPE_CHECKING:
    from argparse import Namespace

    from telemagic.parser import Parser
    from telemagic.session import Session

SUMMARY = "put a copy of the root part where only root can change it"
DETAIL = f"""\
install    copy netd and what it needs to {helper_copy.DIRECTORY}, by sudo; connect uses it from then on. Prints \
the line by which sudo may run it, and nothing else, without a password; whether to use that is yours
uninstall  remove the copy
status     say whether there is one, and whether it may be trusted (default)"""


def add_arguments(parser: Parser) -> None:
    """Add the arguments of helper."""
    actions = ("install", "uninstall", "status")
    parser.add_argument("action", choices=actions, nargs="?", default="status", metavar="|".join(actions))


def run(session: Session, args: Namespace) -> Text:
    """Carry out one action."""
    directory = helper_copy.DIRECTORY
    if args.action == "uninstall":
        if helper_copy.look().state == helper_copy.ABSENT:
            return Text(f"there is nothing in {directory}")
        run_as_root(["/bin/sh", "-c", helper_copy.UNINSTALL, "telemagic", str(directory)])
        return Text(
            f"removed {directory}\nIf a sudoers line names it: sudo visudo -f /etc/sudoers.d/telemagic"
        )
    if args.action == "status":
        return Text(describe(helper_copy.look()))
    helper_copy.check_place()
    python = helper_copy.find_python()
    archive = helper_copy.pack(python)
    run_as_root(["/bin/sh", "-c", helper_copy.INSTALL, "telemagic", str(directory), str(python)], archive)
    found = helper_copy.look()
    if found.state != helper_copy.READY:
        raise HelperRefused(f"it was installed, but: {found.problem}", hint=f"look at: ls -ld {directory}")
    program = directory / helper_copy.PROGRAM
    line = helper_copy.SUDOERS.format(user=sudoers_user(os.getuid()), program=program)
    return Text(f"installed {program} {found.version}, run by {python}\n\n{line}")


def sudoers_user(uid: int) -> str:
    """Return a user as sudoers knows one. By the uid: $LOGNAME may say anything, even ALL."""
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = ""
    return name if re.fullmatch(r"[a-z_][a-z0-9_.-]*", name) else f"#{uid}"


def describe(found: helper_copy.Copy) -> str:
    """Say in a line or two what there is and what connect does with it."""
    directory = helper_copy.DIRECTORY
    if found.state == helper_copy.READY:
        return f"ready: {directory}/{helper_copy.PROGRAM} {found.version}; only root can change it, connect uses it"
    if found.state == helper_copy.OTHER:
        return f"not used: {found.problem}; connect runs this environment's netd\n  try: telemagic helper install"
    if found.state == helper_copy.UNSAFE:
        return f"not to be trusted: {found.problem}; connect refuses\n  try: telemagic helper install"
    return (
        f"none in {directory}: connect runs this environment's netd, by sudo\n  try: telemagic helper install"
    )
