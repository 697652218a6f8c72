"""Imports that Stop must not break off: what is half loaded of a C extension cannot be loaded again in this process."""

from __future__ import annotations

import threading
from importlib import import_module

_loaded: set[str] = set()


def load(name: str) -> None:
    """Import a module, in a thread of its own: there no signal comes, and an interrupt ends the waiting alone."""
    if name in _loaded:
        return
    faults: list[BaseException] = []

    def run() -> None:
        try:
            import_module(name)
        except BaseException as error:  # raised again where somebody waits
            faults.append(error)

    thread = threading.Thread(target=run, name=f"telemagic import of {name}", daemon=True)
    thread.start()
    thread.join()
    if faults:
        raise faults[0]
    _loaded.add(name)
