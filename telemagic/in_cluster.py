"""A notebook that runs inside a cluster already: there is nothing to connect, and this says so in a connection's place."""

from __future__ import annotations

import os
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from telehelper.errors import NotConnected

from telemagic import cards, kubeconfig
from telemagic.connection import Connection
from telemagic.target import of_defaults

if TYPE_CHECKING:
    from telehelper import messages

    from telemagic.target import ConnectOptions

# Where the kubelet puts a pod's own credentials (Kubernetes, "Accessing the Kubernetes API from a Pod").
SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
ELSEWHERE: Final = "for another cluster: %tele connect --kubeconfig FILE"


def applies(options: ConnectOptions) -> bool:
    """Whether this process runs in a pod, and the user has not named a cluster: by a flag, a default or a kubeconfig."""
    if not os.environ.get("KUBERNETES_SERVICE_HOST") or not (SERVICE_ACCOUNT / "token").exists():
        return False
    options = of_defaults(options)
    return not (options.context or options.kubeconfig) and not any(
        path.exists() for path in kubeconfig.search_path()
    )


class InCluster(Connection):
    """Stands for a connection where none is needed: names resolve, and nothing is routed, measured or undone."""

    def __init__(self) -> None:
        self.context = "in-cluster"
        self.namespace = _namespace()
        self.lost = ""
        self.target = None
        self.notices = ()
        self.remark = ""
        self.is_new = True
        self._begun = []
        self.last_error = None
        self.shown_in = None
        self.on_end = lambda: None
        self._client = None
        self._is_over = False

    @property
    def is_open(self) -> bool:
        """Whether :meth:`disconnect` was not called yet."""
        return not self._is_over

    @property
    def is_over(self) -> bool:
        """Whether :meth:`disconnect` was called."""
        return self._is_over

    def tell(self, body: messages.Message, patience: float = 0.0) -> None:
        """There is nobody to tell."""

    def introduce(self, notebook: str) -> None:
        """There is nobody to tell."""

    def disconnect(self) -> cards.Card:
        """End what never began."""
        self.leave()
        line = "nothing was connected, so nothing is undone: services go on answering by name"
        return cards.farewell(self.context, self.namespace, line)

    def end(self, patience: float) -> None:
        """End what never began."""
        self.leave()

    def forget(self) -> None:
        """There is nothing that a forked child must not use."""

    def leave(self) -> None:
        """End what never began."""
        self._is_over = True
        self.on_end()

    def _ask(self, request: messages.Message, expect: type[Any], patience: float = 0.0) -> NoReturn:
        self._refuse()

    def _directory(self) -> NoReturn:
        self._refuse()

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("_"):
            raise AttributeError(name)
        self._refuse()  # what a connection has and this has not

    def _refuse(self) -> NoReturn:
        raise NotConnected(
            "this notebook runs inside the cluster, where nothing passes through telemagic that it could show",
            hint=f"use the services' names as they are, and kubectl to look; {ELSEWHERE}",
        )

    def __exit__(self, *_: object) -> None:
        if not self._is_over:
            self.leave()

    async def __aexit__(self, *_: object) -> None:
        if not self._is_over:
            self.leave()

    def __repr__(self) -> str:
        return self._card().text

    def _card(self) -> cards.Card:
        line = (
            f"This notebook runs inside the cluster already, in namespace {self.namespace}: its services answer by name as "
            "it is, and nothing was changed"
        )
        html = (
            f'<div class="tm-head tm-good"><i class="tm-dot"></i><span>{escape(line)}</span></div>'
            f'<div class="tm-note">{escape(ELSEWHERE)}</div>'
        )
        return cards.Card(cards.printable(line) + f"\n  note: {ELSEWHERE}", cards.box(html))

    def _ipython_display_(self) -> None:
        raise NotImplementedError  # IPython's way to say: show it as usual; a card that never turns over

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        return self._card()._repr_mimebundle_()


def _namespace() -> str:
    try:
        return (SERVICE_ACCOUNT / "namespace").read_text(encoding="utf-8").strip() or "default"
    except OSError:
        return "default"
