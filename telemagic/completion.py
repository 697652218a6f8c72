"""What can follow in a line of `%tele`: read off the argparse tree, with names out of memory; for IPython's matchers."""

from __future__ import annotations

import argparse
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from telemagic import frames
from telemagic.remembered import WAIT, Names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from telehelper.views import ServiceRow

    from telemagic.parser import Parser, Tree

MAX_SHOWN: Final = 200  # choices; no menu of a front end is a place for more
PRIORITY: Final = 200  # above all of IPython's own matchers, of which the files' one has 100

# A line of ours, also behind `df =` and indented; a plain startswith would miss these.
_LINE: Final = re.compile(r"(?:^|=)\s*(?P<magic>%{1,2}tele)\s(?P<rest>.*)$", re.DOTALL)
# Names come from kubeconfigs and clusters. What IPython would take for more than a word is not offered: it runs `{…}`.
_SPECIAL: Final = frozenset(" {}$;'\"`\\")


class Known(Protocol):
    """Who knows names; each waits until that monotonic time at most. :class:`telemagic.remembered.Names` is one."""

    def contexts(self, until: float) -> list[str]:
        """Return the contexts of the kubeconfig."""

    def services(self, until: float) -> Sequence[ServiceRow]:
        """Return the services of the connected cluster."""

    def namespaces(self, until: float) -> list[str]:
        """Return namespaces."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One thing that may follow; ``kind`` is what a front end shows beside it."""

    text: str
    kind: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What may follow. ``fragment``: the end of the line that a choice replaces."""

    fragment: str
    choices: tuple[Choice, ...]


def complete(tree: Tree, line: str, names: Known) -> Answer | None:
    """Return what can follow a line up to the cursor.

    None when the line is not ours, or wants what IPython knows better: files, and variables after `-o`.
    """
    found = _LINE.search(line)
    if found is None:
        return None
    words = found["rest"].split()
    fragment = words.pop() if words and not found["rest"][-1].isspace() else ""
    if found["magic"] == "%%tele":
        place = _Place(tree, "connect", tree.cell, names)
    elif not words:
        return _answer(fragment, _first(tree, fragment))
    elif words[0] in tree.commands and "--" not in words:
        place = _Place(tree, words[0], tree.commands[words.pop(0)], names)
    else:
        return Answer(fragment, ())
    return place.complete(words, fragment)


def _first(tree: Tree, fragment: str) -> Iterator[Choice]:
    if fragment.startswith("-"):
        yield Choice("--help", "flag")
    for name in tree.commands:
        yield Choice(name, "subcommand")


def _answer(fragment: str, choices: Iterable[Choice]) -> Answer:
    fitting: dict[Choice, None] = {}  # in order, each once
    for choice in choices:
        if choice.text.startswith(fragment) and _is_a_word(choice.text):
            fitting[choice] = None
            if len(fitting) == MAX_SHOWN:
                break
    return Answer(fragment, tuple(fitting))


def _is_a_word(text: str) -> bool:
    return text.isprintable() and _SPECIAL.isdisjoint(text)


@dataclass(slots=True)
class _Place:
    """A subcommand whose arguments are being typed."""

    tree: Tree
    command: str
    parser: Parser
    names: Known

    def complete(self, words: list[str], fragment: str) -> Answer | None:
        flags = {flag: action for action in self.parser.actions for flag in action.option_strings}
        pending: argparse.Action | None = None  # a flag whose value comes next
        given: set[str] = set()
        positionals = 0
        for word in words:
            if pending is not None:
                pending = None
            elif word.startswith("-"):
                name, equals, _ = word.partition("=")
                action = flags.get(name)
                given.add(action.dest if action is not None else "")
                pending = action if action is not None and not equals and takes_value(action) else None
            else:
                positionals += 1
        if pending is not None:
            return self._value(pending, fragment)
        if fragment.startswith("-"):
            name, equals, value = fragment.partition("=")
            if equals:
                return self._value(flags[name], value) if name in flags else Answer(value, ())
            return _answer(fragment, self._flags(given))
        return self._positional(positionals, given, fragment)

    def _flags(self, given: set[str]) -> Iterator[Choice]:
        for action in self.parser.actions:
            if (
                action.dest not in given or type(action).__name__ == "_AppendAction"
            ):  # argparse names it nowhere else
                for flag in reversed(action.option_strings):  # the long one first
                    yield Choice(flag, "flag")

    def _positional(self, index: int, given: set[str], fragment: str) -> Answer | None:
        positionals = [action for action in self.parser.actions if not action.option_strings]
        many = bool(positionals) and positionals[-1].nargs in ("*", "+", argparse.REMAINDER)
        if index < len(positionals) or many:
            found = self._value(positionals[min(index, len(positionals) - 1)], fragment)
            if found is None or fragment or found.choices:
                return found
        return _answer(fragment, self._flags(given))

    def _value(self, action: argparse.Action, fragment: str) -> Answer | None:
        if action.choices is not None:
            return _answer(fragment, (Choice(str(one), "value") for one in action.choices))
        source = _SOURCES.get(f"{self.command} {action.dest}") or _SOURCES.get(action.dest)
        if source is not None:
            return _answer(fragment, source(self, fragment, time.monotonic() + WAIT))
        # A file or a variable: IPython completes these. Of anything else nobody knows what may follow.
        return None if action.dest in ("kubeconfig", "output") else Answer(fragment, ())

    def _contexts(self, fragment: str, until: float) -> Iterator[Choice]:
        return (Choice(name, "context") for name in self.names.contexts(until))

    def _namespaces(self, fragment: str, until: float) -> Iterator[Choice]:
        return (Choice(name, "namespace") for name in self.names.namespaces(until))

    def _services(self, fragment: str, until: float) -> Iterator[Choice]:
        return (Choice(f"{row.name}.{row.namespace}", "service") for row in self.names.services(until))

    def _targets(self, fragment: str, until: float) -> Iterator[Choice]:
        """Services, and behind a colon their ports by name and number."""
        host, colon, _ = fragment.partition(":")
        if not colon:
            yield from self._services(fragment, until)
            return
        for row in self.names.services(until):
            if host in (row.name, f"{row.name}.{row.namespace}"):
                for port in row.ports:
                    yield from (Choice(f"{host}:{one}", "port") for one in (port.number, port.name) if one)

    def _columns(self, fragment: str, until: float) -> Iterator[Choice]:
        return (Choice(column.name, "column") for column in frames.FLOW_SCHEMA)

    def _commands(self, fragment: str, until: float) -> Iterator[Choice]:
        return (Choice(name, "subcommand") for name in self.tree.commands)


_SOURCES: Final[dict[str, Callable[[_Place, str, float], Iterable[Choice]]]] = {
    "context": _Place._contexts,
    "namespace": _Place._namespaces,
    "manager_namespace": _Place._namespaces,
    "service": _Place._services,
    "target": _Place._targets,
    "fault service": _Place._targets,
    "resolve name": _Place._services,
    "topic": _Place._commands,
    "flows sort": _Place._columns,
    "flows state": lambda place, fragment, until: (Choice(word, "value") for word in ("open", "closed")),
    "flows cell": lambda place, fragment, until: [Choice("last", "value")],
}


class _Silence(list[Any]):
    """No completions at all: IPython asks its other matchers when ours has none, and Jedi takes 0.7 s the first time.

    It goes by the length, so that is not 0.
    """

    def __len__(self) -> int:
        return 1


def takes_value(action: argparse.Action) -> bool:
    """Whether a flag is followed by a value."""
    return action.nargs != 0


def matcher(tree: Tree, names: Names) -> Callable[[Any], dict[str, Any]]:
    """Make a matcher of IPython's completer (version 2 of that API)."""
    from IPython.core.completer import SimpleCompletion, context_matcher

    @context_matcher(identifier="telemagic", priority=PRIORITY)  # type: ignore[untyped-decorator]  # IPython is untyped
    def match(context: Any) -> dict[str, Any]:  # noqa: ANN401  # IPython is untyped
        line = context.text_until_cursor
        if "%tele" not in line:
            return {"completions": [], "suppress": False}
        names.warm()
        answer = complete(tree, line, names)
        if answer is None:
            return {"completions": [], "suppress": False}
        return {
            "completions": [SimpleCompletion(text=one.text, type=one.kind) for one in answer.choices]
            or _Silence(),
            "suppress": True,
            "ordered": True,
            "matched_fragment": answer.fragment,
        }

    return match  # type: ignore[no-any-return]  # as above
