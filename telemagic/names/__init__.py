"""Names in the kernel process: a resolver hook where the machine's own resolver stays untouched, and what bypasses it.

While connected, names resolve for every program of the machine, except with ``--dns kernel``: then the machine is not
touched and :mod:`telemagic.names.hook` answers in this process alone. Either way some libraries do not ask the operating
system; :mod:`telemagic.names.bypass` finds and, where that can be, fixes them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from telehelper.messages import Status

    from telemagic.names.bypass import Bypass, Fixes
    from telemagic.names.hook import Hook

_hook: Hook | None = None
_fixes: Fixes | None = None


def connected(status: Status) -> tuple[str, ...]:
    """Make names work in this process; returns what the user should know, one line each."""
    global _hook, _fixes  # of the process, like the functions that are replaced
    disconnected()
    if status.dns == "none" or not status.dns_server:
        return ()
    from telemagic.names.bypass import Fixes  # late: only a connect needs it

    if status.dns == "kernel":
        from telemagic.names.hook import Hook

        _hook = Hook(status.dns_server, status.device, status.domains)
        _hook.install()
    _fixes = Fixes(status.dns, status.dns_server)
    _fixes.apply()
    return tuple(f"{found.library}: {found.detail}; {found.remedy}" for found in bypasses() if found.remedy)


def disconnected() -> None:
    """Put everything back as it was."""
    global _hook, _fixes  # see connected
    hook, fixes, _hook, _fixes = _hook, _fixes, None, None
    if fixes is not None:
        fixes.undo()
    if hook is not None:
        hook.remove()


def bypasses() -> list[Bypass]:
    """Return the libraries in this process that do not ask the operating system, with what was done about each."""
    return _fixes.bypasses() if _fixes is not None else []
