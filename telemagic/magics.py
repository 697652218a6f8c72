"""The `%tele` magic: splits the line, runs the command, and leaves showing the result to IPython.

Loading registers six things, which unloading takes away again: the magics, the completer's matcher, the input
transformer of `%%tele`, the watch for cells, how our tables look, and where defaults come from. A connection stays as
it is.
"""

from __future__ import annotations

import contextlib
from typing import Any, Final

from IPython.core.error import UsageError
from IPython.core.magic import Magics, cell_magic, line_magic, magics_class, output_can_be_silenced
from IPython.utils.process import arg_split
from telehelper import errors
from traitlets import Bool, Enum, Float, List, Unicode

from telemagic import attribution, completion, config, connected_cell, failures, production, showing
from telemagic.parser import Tree
from telemagic.remembered import Names
from telemagic.results import Text
from telemagic.session import session

PROG: Final = "%tele"
_TRAITS: Final = tuple(config.HELP)


@magics_class
class TeleMagics(Magics):  # type: ignore[misc]  # IPython is untyped
    """Names of a Kubernetes cluster answer here. What is set here wins over pyproject.toml and ~/.config/telemagic."""

    context = Unicode(config.BUILT_IN.context, help=config.HELP["context"]).tag(config=True)
    namespace = Unicode(config.BUILT_IN.namespace, help=config.HELP["namespace"]).tag(config=True)
    kubeconfig = Unicode(config.BUILT_IN.kubeconfig, help=config.HELP["kubeconfig"]).tag(config=True)
    timeout = Float(config.BUILT_IN.timeout, min=0.001, help=config.HELP["timeout"]).tag(config=True)
    via = Enum(config.WAYS, config.BUILT_IN.via, help=config.HELP["via"]).tag(config=True)
    dns = Enum(config.DNS_MECHANISMS, config.BUILT_IN.dns, help=config.HELP["dns"]).tag(config=True)
    on_conflict = Enum(config.ON_CONFLICT, config.BUILT_IN.on_conflict, help=config.HELP["on_conflict"]).tag(
        config=True
    )
    manager_namespace = Unicode(config.BUILT_IN.manager_namespace, help=config.HELP["manager_namespace"]).tag(
        config=True
    )
    short_errors = Bool(config.BUILT_IN.short_errors, help=config.HELP["short_errors"]).tag(config=True)
    production = List(Unicode(), list(config.BUILT_IN.production), help=config.HELP["production"]).tag(
        config=True
    )
    progress_after = Float(config.BUILT_IN.progress_after, min=0.0, help=config.HELP["progress_after"]).tag(
        config=True
    )

    def __init__(self, shell: Any) -> None:  # noqa: ANN401  # IPython is untyped
        self._by_user: set[str] = set()  # what was set by %config, or in IPython's own configuration
        self._following = False
        super().__init__(shell)
        self._by_user |= set(self.config.get(type(self).__name__, {})) & set(_TRAITS)
        self.observe(self._set, _TRAITS)
        self.names = Names()
        self._tree = Tree(PROG, self.settings)
        # `%tele?` and `%%tele?` show these; made from the same tree, so they cannot lie.
        type(self).tele.__doc__ = self._tree.help().text
        type(self)._misplaced_cell.__doc__ = self._tree.cell.format_help()

    @property
    def tree(self) -> Tree:
        """The grammar, with the defaults in force."""
        return self._tree

    def settings(self) -> config.Settings:
        """Return the defaults in force: what the user has set here, else what the files say.

        Raises
        ------
        ConfigError
            A file cannot be used.
        """
        found = config.from_files()
        self._following = True
        try:
            for name in set(_TRAITS) - self._by_user:  # so that `%config TeleMagics` shows what is in force
                value = getattr(found, name)
                setattr(self, name, list(value) if name == "production" else value)
        finally:
            self._following = False
        values = {name: getattr(self, name) for name in _TRAITS}
        values["production"] = tuple(values["production"])
        production.use(values["production"])
        return config.Settings(**values)

    def _set(self, change: Any) -> None:  # noqa: ANN401  # traitlets' own
        if not self._following:
            self._by_user.add(change["name"])
            if change["name"] == "production":
                production.use(change["new"])

    @output_can_be_silenced  # type: ignore[untyped-decorator]  # IPython is untyped
    @line_magic  # type: ignore[untyped-decorator]  # IPython is untyped
    def tele(self, line: str) -> object:  # noqa: D102  # set above: `%tele?` shows it
        try:
            understood = self._tree.parse(_split(line))
        except errors.UsageError as error:
            raise _for_ipython(error) from None
        if isinstance(understood, Text):
            return understood
        if not understood.command:
            return self._overview()
        try:
            with failures.short_interrupts(self.shell):
                result = self._tree.run(session(), understood)
        except errors.UsageError as error:
            if session().connection is not None and understood.command in _LOOKING:
                raise  # the cluster has no such name: no mistake in the line, so runners of notebooks must see it
            raise _for_ipython(error) from None
        if understood.command == "connect":
            self.names.warm()  # so that services are there when their names are typed
        output = getattr(understood.args, "output", "")
        if not output:
            return result
        self.shell.user_ns[output] = result
        return None

    @line_magic(connected_cell.MAGIC)  # type: ignore[untyped-decorator]  # IPython is untyped
    def _begin_cell(self, line: str) -> Text | None:
        """First line of a cell that begins with `%%tele`."""
        try:
            words = _split(line)
            args = self._tree.parse_cell(words)
            if isinstance(args, Text):
                return args
            plain = self._tree.is_plain(args)
            cell = connected_cell.ConnectedCell(self.shell, args)
            with failures.short_interrupts(self.shell):
                cell.begin(plain=plain)
        except errors.UsageError as error:
            raise _for_ipython(error) from None
        return None

    @cell_magic("tele")  # type: ignore[untyped-decorator]  # IPython is untyped
    def _misplaced_cell(self, line: str, cell: str) -> None:
        # Cells whose first line it is never come here: that line was rewritten before.
        raise UsageError("%%tele runs whole cells: it must be the first line of one\n  try: %%tele --help")

    def _overview(self) -> Text:
        connection = session().connection
        if connection is None:
            state = "not connected"
        elif connection.lost:
            state = f"connection to {connection.context} lost: {connection.lost}"
        else:
            state = f"connected to {connection.context}, namespace {connection.namespace}"
        return Text(f"{state}\n\n{self._tree.help().text}")


# Commands that look up a name of the user's in the cluster.
_LOOKING: Final = frozenset({"ping", "resolve"})


def _split(line: str) -> list[str]:
    try:
        # IPython leaves the semicolon that silences the output in the line.
        return list(arg_split(line.rstrip().removesuffix(";"), posix=True))
    except ValueError as error:  # an open quote
        raise errors.UsageError(f"cannot split the line: {error}", hint="close the quotes") from error


def _for_ipython(error: errors.UsageError) -> UsageError:
    # IPython shows this very class, no subclass, without a traceback (ipython#14024).
    return UsageError("\n".join([error.message, f"  try: {error.hint}"] if error.hint else [error.message]))


# --- loading -----------------------------------------------------------------------------------------------------

_matchers: list[Any] = []  # ours, of the shell that the magics are in


def load(shell: Any) -> None:  # noqa: ANN401  # IPython is untyped
    """Register everything; nothing happens if it is there."""
    if any(isinstance(one, TeleMagics) for one in shell.configurables):
        return
    magics = TeleMagics(shell)
    shell.register_magics(magics)
    shell.input_transformers_cleanup.append(connected_cell.transform)
    attribution.watch(shell)
    showing.register(shell)
    config.use(magics.settings)
    with contextlib.suppress(config.ConfigError):  # the first line that needs it says so
        magics.settings()  # so that `%config TeleMagics` shows what is in force
    if getattr(shell, "Completer", None) is not None:
        _matchers[:] = [completion.matcher(magics.tree, magics.names)]
        shell.Completer.custom_matchers += _matchers


def unload(shell: Any) -> None:  # noqa: ANN401  # IPython is untyped
    """Take everything away, and the magics' object from the shell's configurables."""
    for kind, name in (("line", "tele"), ("line", connected_cell.MAGIC), ("cell", "tele")):
        shell.magics_manager.magics[kind].pop(name, None)
    shell.magics_manager.registry.pop(TeleMagics.__name__, None)
    shell.configurables[:] = [one for one in shell.configurables if not isinstance(one, TeleMagics)]
    _without(shell.input_transformers_cleanup, [connected_cell.transform])
    if getattr(shell, "Completer", None) is not None:
        _without(shell.Completer.custom_matchers, _matchers)
    _matchers.clear()
    attribution.unwatch()
    showing.unregister(shell)
    config.use(None)


def _without(those: list[Any], ours: list[Any]) -> None:
    those[:] = [one for one in those if one not in ours]
