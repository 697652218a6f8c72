"""One argparse tree for `%tele`, the `telemagic` command and the help texts; it never exits and never prints."""

from __future__ import annotations

import argparse
import difflib
import keyword
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, NoReturn, Protocol

from telehelper import __version__
from telehelper.errors import UsageError

from telemagic import config
from telemagic.help_text import HelpFormatter
from telemagic.results import Text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from telemagic.config import Settings
    from telemagic.session import Session

COMMANDS: Final = (
    "connect",
    "status",
    "flows",
    "latency",
    "events",
    "dashboard",
    "routes",
    "services",
    "pods",
    "resolve",
    "ping",
    "disconnect",
    "doctor",
    "fault",
    "install",
    "helper",
    "demo",
    "bench",
    "help",
)
# Subcommands that show something to read and return nothing to keep.
WITHOUT_RESULT: Final = frozenset({"help"})


CELL: Final = "cell"  # the name under which the parser of `%%tele` is kept
OF_CELL: Final = ("keep", "output", "help")  # arguments of `%%tele` that are not connect's
CELL_SUMMARY: Final = "first line of a cell: run it connected, and show its flows"
CELL_DETAIL: Final = """\
A connection that is there already is used, and stays; otherwise the cell connects, and disconnects afterwards. Only
flows that this cell caused are shown, those of its threads and processes too. Takes the flags of connect."""


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that raises UsageError instead of exiting, and knows its flags' names."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  # argparse's own signature
        self.flags: list[str] = []
        kwargs |= {"add_help": False, "allow_abbrev": False}
        super().__init__(*args, **kwargs)
        self.formatter_class = HelpFormatter

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

    def add_table_arguments(self) -> None:
        """Add the flags of all commands that ask a connection for a table with many columns."""
        self.add_argument("--wide", action="store_true", help="show all columns; df = … has them in any case")
        self.add_connection_argument()

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

    @property
    def actions(self) -> list[argparse.Action]:
        """All arguments, flags too, in the order in which they were added."""
        return list(self._actions)

    def _check_value(self, action: argparse.Action, value: Any) -> None:  # noqa: ANN401  # argparse's own signature
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            meant = did_you_mean(str(value), map(str, action.choices or ()))
            raise argparse.ArgumentError(action, f"{error.message}{meant}") from None

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
    """The grammar, under the name that the user typed: `%tele` or `telemagic`.

    `settings` gives the defaults in force, asked anew for each line; the built-in ones unless given. Lines of a notebook
    may keep what they return in a variable (`-o`), and their cells may be connected ones (`%%tele`).
    """

    def __init__(self, prog: str, settings: Callable[[], Settings] | None = None) -> None:
        self.prog = prog
        self._settings = settings
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
            if prog.startswith("%") and name not in WITHOUT_RESULT:
                _add_output_argument(parser)
            parser.add_argument("-h", "--help", action="store_true", help="show this text")
            self._parsers[name] = parser
        self._parsers[CELL] = self._cell_parser()

    def _cell_parser(self) -> Parser:
        connect = self._commands["connect"]
        parser = Parser(prog=f"%{self.prog}", description=f"{CELL_SUMMARY}\n\n{CELL_DETAIL}")
        parser.add_argument("--keep", action="store_true", help="stay connected afterwards")
        connect.add_arguments(parser)
        _add_output_argument(parser)
        parser.add_argument("-h", "--help", action="store_true", help="show this text")
        return parser

    @property
    def commands(self) -> dict[str, Parser]:
        """The parser of each subcommand."""
        return {name: parser for name, parser in self._parsers.items() if name != CELL}

    @property
    def cell(self) -> Parser:
        """The parser of `%%tele`."""
        return self._parsers[CELL]

    def parse_cell(self, words: Sequence[str]) -> argparse.Namespace | Text:
        """Understand the first line of a connected cell, without its `%%tele`; a Text when it only asks for help.

        Raises
        ------
        UsageError
            It cannot be understood.
        """
        if _wants_help(list(words)):
            return Text(self.cell.format_help())
        args, extra = self._arguments(CELL, list(words))
        if extra:
            self._refuse(CELL, self.cell, extra)
        return args

    def is_plain(self, args: argparse.Namespace) -> bool:
        """Whether the first line of a connected cell says nothing about where and how to connect."""
        plain, _ = self._arguments(CELL, [])
        return all(value == getattr(plain, name) for name, value in vars(args).items() if name not in OF_CELL)

    def parse(self, words: Sequence[str]) -> Line | Text:
        """Understand a line; a Text when it only asks for help or the version.

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
        if name == "--version":
            return Text(f"telemagic {__version__}")
        if name.startswith("-"):
            raise UsageError(f"unknown flag {name!r}", hint=f"{self.prog} help")
        if name not in self.commands:
            raise UsageError(
                f"unknown subcommand {name!r}{did_you_mean(name, self.commands)}", hint=f"{self.prog} help"
            )
        if _wants_help(rest):
            return self.help(name)
        parser = self._parsers[name]
        # argparse gives what follows `--` to the first positional that comes, so it never sees it.
        cut = rest.index("--") if "--" in rest else len(rest)
        args, extra = self._arguments(name, rest[:cut])
        if hasattr(args, "argv"):
            args.argv = [*args.argv, *rest[cut + 1 :]]
        else:
            extra += rest[cut + 1 :]
        if extra:
            self._refuse(name, parser, extra)
        return Line(name, args)

    def _arguments(self, name: str, words: list[str]) -> tuple[argparse.Namespace, list[str]]:
        parser = self._parsers[name]
        defaults: dict[str, object] = {}
        if self._settings is not None:
            defaults = config.of_command(self._settings(), "connect" if name == CELL else name)
        # What a namespace has already, argparse takes for given by the user: so a flag wins over it, and it over the rest.
        args, extra = parser.parse_known_args(words, argparse.Namespace(**defaults))
        if getattr(args, "demo", False) is True:  # the demo is a cluster of its own: which one is said
            defaults = {key: value for key, value in defaults.items() if key not in config.NOT_DEMO}
            args, extra = parser.parse_known_args(words, argparse.Namespace(**defaults))
        output = getattr(args, "output", "")
        if output and (not output.isidentifier() or keyword.iskeyword(output)):
            raise UsageError(f"{output!r} is no name of a variable", hint="write it like -o df")
        return args, extra

    def _refuse(self, name: str, parser: Parser, extra: list[str]) -> NoReturn:
        hint = f"{parser.prog} --help"
        name = parser.prog if name == CELL else name
        flag = next((word for word in extra if word.startswith("-")), None)
        if flag is None:
            raise UsageError(f"{name} takes no argument {extra[0]!r}", hint=hint)
        bare = flag.split("=", 1)[0]
        raise UsageError(f"{name} has no flag {bare!r}{did_you_mean(bare, parser.flags)}", hint=hint)

    def run(self, session: Session, line: Line) -> object:
        """Carry out a line."""
        return self._commands[line.command].run(session, line.args)

    def _further(self) -> str:
        lines = [
            f"{self.prog} help COMMAND  flags, and what the columns of a table mean",
            f"{self.prog} connect --demo  a cluster to try things with, on this machine",
        ]
        if self.prog.startswith("%"):
            lines += [
                f"df = {self.prog} flows  tables are DataFrames",
                f"{self.cell.prog} --help  {CELL_SUMMARY}",
            ]
        width = max(line.index("  ") for line in lines) + 2
        aligned = (f"{left:{width}}{right}" for left, _, right in (line.partition("  ") for line in lines))
        return "\n" + "\n".join(aligned) + "\n"

    def help(self, name: str = "") -> Text:
        """Return the help of one command, or of all.

        Raises
        ------
        UsageError
            There is no such command.
        """
        if not name:
            return Text(self.root.format_help() + self._further())
        if name not in self.commands:
            raise UsageError(
                f"no help on {name!r}{did_you_mean(name, self.commands)}", hint=f"{self.prog} help"
            )
        return Text(self._parsers[name].format_help())


def _add_output_argument(parser: Parser) -> None:
    parser.add_argument(
        "-o", dest="output", default="", metavar="VAR", help="keep the result in a variable, do not show it"
    )


def _wants_help(words: list[str]) -> bool:
    ours = words[: words.index("--")] if "--" in words else words
    return "-h" in ours or "--help" in ours


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `: did you mean 'flows'?`, or nothing when nothing is close. That both are flags makes nothing close."""
    bare = {name.lstrip("-"): name for name in known}
    close = difflib.get_close_matches(word.lstrip("-"), bare, n=1)
    return f": did you mean {bare[close[0]]!r}?" if close else ""
