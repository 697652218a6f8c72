"""Type `%tele connect` in a notebook, and a cluster's services answer there by name.

In a notebook, `%load_ext telemagic` gives the magic, and `%tele help` its commands. The same in scripts::

    with telemagic.connect(context="kind-dev") as tele:  # the kubeconfig's own context unless given; demo=True needs none
        pd.read_sql("select 1", "postgresql+psycopg://shop@postgres.shop:5432/shop")
        tele.flows()  # a DataFrame: who talked to what, and where the time went

:func:`aconnect` is for `async` code, :func:`url` finds a service's port, :class:`Connection` is what they return, and
:mod:`telemagic.errors` has what can be caught. Importing this is cheap: everything loads when first used.
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
