"""One argparse tree for `%tele`, the `telemagic` command and the help texts; it never exits and never prints."""

from __future__ import annotations

import argparse
import difflib
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, NoReturn, Protocol

from telehelper.errors import UsageError

from telemagic.results import Text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from telemagic.session import Session

COMMANDS: Final = (
    "connect",
    "status",
    "flows",
    "routes",
    "services",
    "pods",
    "resolve",
    "ping",
    "disconnect",
    "doctor",
    "install",
    "helper",
    "demo",
    "bench",
    "help",
)


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that raises UsageError instead of exiting, and knows its flags' names."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  # argparse's own signature
        self.flags: list[str] = []
        kwargs |= {"add_help": False, "allow_abbrev": False}
        super().__init__(*args, **kwargs)
        self.formatter_class = argparse.RawDescriptionHelpFormatter

    def add_argument(self, *names: Any, **kwargs: Any) -> argparse.Action:  # noqa: ANN401  # argparse's own signature
        """Add an argument, as argparse does."""
        action = super().add_argument(*names, **kwargs)
        self.flags += action.option_strings
        return action

    def add_connection_argument(self) -> None:
        """Add the flag of all commands that ask a connection."""
        self.add_argument(
            "--context", default="", metavar="NAME", help="which connection, when there are several"
        )

    def add_namespace_arguments(self) -> None:
        """Add the flags of all commands that list what is in namespaces."""
        where = self.add_mutually_exclusive_group()
        flags = (
            where.add_argument(
                "-n",
                "--namespace",
                default="",
                metavar="NAME",
                help="only this one; default: the connected one",
            ),
            where.add_argument(
                "-A", "--all-namespaces", action="store_true", dest="everywhere", help="all namespaces"
            ),
        )
        self.flags += [flag for action in flags for flag in action.option_strings]

    def error(self, message: str) -> NoReturn:
        """Raise what is wrong with the line."""
        raise UsageError(message, hint=f"{self.prog} --help")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """Raise: a kernel must not exit because of a line."""
        raise UsageError(message or "bad arguments", hint=f"{self.prog} --help")


class Command(Protocol):
    """A module of `telemagic.commands`."""

    SUMMARY: str
    DETAIL: str

    def add_arguments(self, parser: Parser) -> None:
        """Add this command's arguments."""

    def run(self, session: Session, args: argparse.Namespace) -> object:
        """Carry it out and return what it shows."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line that was understood."""

    command: str
    args: argparse.Namespace


class Tree:
    """The grammar, under the name that the user typed: `%tele` or `telemagic`."""

    def __init__(self, prog: str) -> None:
        self.prog = prog
        self._commands: dict[str, Command] = {
            name: import_module(f"telemagic.commands.{name}") for name in COMMANDS
        }
        self._parsers: dict[str, Parser] = {}
        self.root = Parser(prog=prog, description="Make a Kubernetes cluster's services answer here by name.")
        below = self.root.add_subparsers(
            dest="command", metavar="COMMAND", parser_class=Parser, title="commands"
        )
        for name, command in self._commands.items():
            parser = below.add_parser(
                name, help=command.SUMMARY, description=f"{command.SUMMARY}\n\n{command.DETAIL}".rstrip()
            )
            command.add_arguments(parser)
            parser.add_argument("-h", "--help", action="store_true", help="show this text")
            self._parsers[name] = parser

    def parse(self, words: Sequence[str]) -> Line | Text:
        """Understand a line; a Text when it only asks for help.

        Raises
        ------
        UsageError
            It cannot be understood; the message says what was probably meant.
        """
        if not words:
            return Line("", argparse.Namespace())
        name, rest = words[0], list(words[1:])
        if name in {"-h", "--help"}:
            return self.help()
        if name not in self._parsers:
            what = "flag" if name.startswith("-") else "subcommand"
            raise UsageError(
                f"unknown {what} {name!r}{did_you_mean(name, self._parsers)}", hint=f"{self.prog} help"
            )
        if _wants_help(rest):
            return self.help(name)
        parser = self._parsers[name]
        # argparse gives what follows `--` to the first positional that comes, so it never sees it.
        cut = rest.index("--") if "--" in rest else len(rest)
        args, extra = parser.parse_known_args(rest[:cut])
        if hasattr(args, "argv"):
            args.argv = [*args.argv, *rest[cut + 1 :]]
        else:
            extra += rest[cut + 1 :]
        if extra:
            self._refuse(name, parser, extra)
        return Line(name, args)

    def _refuse(self, name: str, parser: Parser, extra: list[str]) -> NoReturn:
        hint = f"{self.prog} {name} --help"
        flag = next((word for word in extra if word.startswith("-")), None)
        if flag is None:
            raise UsageError(f"{name} takes no argument {extra[0]!r}", hint=hint)
        bare = flag.split("=", 1)[0]
        raise UsageError(f"{name} has no flag {bare!r}{did_you_mean(bare, parser.flags)}", hint=hint)

    def run(self, session: Session, line: Line) -> object:
        """Carry out a line."""
        return self._commands[line.command].run(session, line.args)

    def help(self, name: str = "") -> Text:
        """Return the help of one command, or of all.

        Raises
        ------
        UsageError
            There is no such command.
        """
        if not name:
            return Text(self.root.format_help())
        if name not in self._parsers:
            raise UsageError(
                f"no help on {name!r}{did_you_mean(name, self._parsers)}", hint=f"{self.prog} help"
            )
        return Text(self._parsers[name].format_help())


def _wants_help(words: list[str]) -> bool:
    ours = words[: words.index("--")] if "--" in words else words
    return "-h" in ours or "--help" in ours


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `: did you mean 'flows'?`, or nothing when nothing is close."""
    close = difflib.get_close_matches(word, known, n=1)
    return f": did you mean {close[0]!r}?" if close else ""
