"""Type `%tele connect` in a notebook, and a cluster's services answer there by name.

`%load_ext telemagic` gives the magic; :func:`connect` and :func:`aconnect` are the same for scripts. Importing this
is cheap: everything loads when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from telehelper import __version__

if TYPE_CHECKING:
    from telemagic import errors
    from telemagic.api import aconnect, connect, url
    from telemagic.connection import Connection
    from telemagic.results import Status

__all__ = ["Connection", "Status", "__version__", "aconnect", "connect", "errors", "url"]

_HOMES = {
    "Connection": "connection",
    "Status": "results",
    "aconnect": "api",
    "connect": "api",
    "errors": "",
    "url": "api",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401  # PEP 562: each name has a type of its own
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{home}"), name) if home else import_module(f"{__name__}.{name}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]


def load_ipython_extension(shell: Any) -> None:  # noqa: ANN401  # IPython is untyped
    """Register `%tele`; called by `%load_ext telemagic`."""
    from telemagic.magics import load

    load(shell)


def unload_ipython_extension(shell: Any) -> None:  # noqa: ANN401  # IPython is untyped
    """Take `%tele` away again; a connection stays as it is."""
    from telemagic.magics import unload

    unload(shell)
