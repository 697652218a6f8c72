"""What is in the cluster, as far as the user's own rights show it: services with their endpoints, and pods.

Everything here comes from the cluster, so nothing of it is trusted: what is not of the expected type counts as missing,
texts and tables are bounded. Lists are read page by page and each page is reduced to rows at once, so that 10,000 pods
(50 MiB of JSON) never are in memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import re
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, TypeVar

from telehelper.errors import ApiServerUnavailable, ClusterError, CredentialsRefused, UsageError
from telehelper.views import PodRow, PodTable, PortRow, ServiceRow, ServiceTable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection

PAGE: Final = "500"  # objects for one request, as kubectl
MAX_PAGES: Final = 100  # of one list; a server may give less than a page at a time
MAX_ROWS: Final = 20_000  # of a table; overflow: the rest is left out, and said so
MAX_SIZE: Final = (
    8 * 1024 * 1024
)  # bytes of a table, half of what a control message may be; overflow: the same
MAX_TEXT: Final = 253  # characters of one text: the longest name in Kubernetes
MAX_PORTS: Final = 100  # of one service or pod; the API server allows as many on a service
LIST_TIMEOUT: Final = 30.0  # seconds for a whole table
_ROW_SIZE: Final = 200  # bytes of a row's field names
_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")  # RFC 1123, as names of namespaces
_SLICES: Final = "/apis/discovery.k8s.io/v1"
_CORE: Final = "/api/v1"

Row = TypeVar("Row", ServiceRow, PodRow)


class ApiReader(Protocol):
    """What this needs of an API client; failures are ClusterError."""

    async def get(self, path: str, **params: str) -> dict[str, Any]:
        """GET a path and return the JSON object."""


class Scope(NamedTuple):
    """Where to look. ``connected`` is where one looks when not everywhere may be; ``known`` namespaces exist."""

    namespace: str
    everywhere: bool
    connected: str
    known: Collection[str] = ()

    @property
    def chosen(self) -> str:
        """The namespace to list, if it is one."""
        return self.namespace or self.connected

    def check(self) -> None:
        """Refuse what cannot be a namespace: it would be part of a path.

        Raises
        ------
        UsageError
            The user's word is no name.
        """
        if not _LABEL.fullmatch(self.chosen):
            raise UsageError(
                f"{self.chosen!r} cannot be a namespace",
                hint="a namespace is letters, digits and dashes, such as shop",
            )


# --- objects to rows; pure ---------------------------------------------------------------------------------------


def _text(value: object) -> str:
    return str(value)[:MAX_TEXT] if isinstance(value, str | int) and not isinstance(value, bool) else ""


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _dicts(value: object) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _count(value: object) -> int:
    return value if type(value) is int and 0 <= value < 1 << 31 else 0


def _ports(ports: object, number: str) -> tuple[PortRow, ...]:
    return tuple(
        PortRow(
            _text(port.get("name")),
            port[number],
            _text(port.get("protocol")) or "TCP",
            _text(port.get("targetPort")),
        )
        for port in _dicts(ports)[:MAX_PORTS]
        if 0 < _count(port.get(number)) < 65536
    )


def service_row(item: dict[str, Any]) -> ServiceRow:
    """Read a Service; its endpoints are not in it."""
    metadata, spec = _dict(item.get("metadata")), _dict(item.get("spec"))
    kind, address = _text(spec.get("type")) or "ClusterIP", _text(spec.get("clusterIP"))
    if kind == "ClusterIP" and address == "None":
        kind = "Headless"
    selector = ",".join(f"{_text(key)}={_text(value)}" for key, value in _dict(spec.get("selector")).items())
    return ServiceRow(
        name=_text(metadata.get("name")),
        namespace=_text(metadata.get("namespace")),
        type=kind,
        cluster_ip="" if address == "None" else address,
        ports=_ports(spec.get("ports"), "port"),
        selector=selector[:MAX_TEXT],
        external_name=_text(spec.get("externalName")),
        endpoints_ready=-1,
        endpoints_total=-1,
    )


def pod_row(item: dict[str, Any]) -> PodRow:
    """Read a Pod. A pod that is being deleted has the phase that kubectl shows, Terminating."""
    metadata, spec, status = (_dict(item.get(part)) for part in ("metadata", "spec", "status"))
    containers = _dicts(spec.get("containers"))
    states = _dicts(status.get("containerStatuses"))
    owner = next(iter(_dicts(metadata.get("ownerReferences"))), {})
    names = [_text(owner.get("kind")), _text(owner.get("name"))]
    return PodRow(
        name=_text(metadata.get("name")),
        namespace=_text(metadata.get("namespace")),
        ip=_text(status.get("podIP")),
        node=_text(spec.get("nodeName")),
        phase="Terminating" if metadata.get("deletionTimestamp") else _text(status.get("phase")),
        ready=sum(state.get("ready") is True for state in states),
        containers=len(containers),
        restarts=sum(_count(state.get("restartCount")) for state in states),
        started_at=_seconds(status.get("startTime")),
        image=", ".join(_text(container.get("image")) for container in containers)[:MAX_TEXT],
        owner="/".join(filter(None, names)),
        ports=tuple(
            port for container in containers for port in _ports(container.get("ports"), "containerPort")
        )[:MAX_PORTS],
    )


def _seconds(value: object) -> float:
    """Return a time of the API, RFC 3339, as Unix seconds; -1 if it is none."""
    try:
        return datetime.datetime.fromisoformat(str(value)).timestamp()
    except (ValueError, OverflowError):
        return -1.0


class Endpoints:
    """Counts endpoints by service, over all of its slices."""

    def __init__(self) -> None:
        # Of a dual-stack service each pod is in one slice of each family.
        self._seen: dict[tuple[str, str], dict[str, dict[str, bool]]] = {}

    def add(self, item: dict[str, Any]) -> None:
        """Take an EndpointSlice."""
        metadata = _dict(item.get("metadata"))
        service = _text(_dict(metadata.get("labels")).get("kubernetes.io/service-name"))
        families = self._seen.setdefault((_text(metadata.get("namespace")), service), {})
        family = families.setdefault(_text(item.get("addressType")), {})
        for endpoint in _dicts(item.get("endpoints")):
            addresses = endpoint.get("addresses")
            # "A nil value should be interpreted as 'true'": EndpointConditions.ready in discovery.k8s.io/v1.
            ready = _dict(endpoint.get("conditions")).get("ready") is not False
            for address in addresses[:1] if isinstance(addresses, list) else ():
                family[_text(address)] = ready

    def of(self, row: ServiceRow) -> ServiceRow:
        """Return the row with its counts."""
        families = self._seen.get((row.namespace, row.name), {}).values()
        counts = [(len(family), sum(family.values())) for family in families]
        total, ready = max(counts, default=(0, 0))
        return replace(row, endpoints_ready=ready, endpoints_total=total)


def _size(row: ServiceRow | PodRow) -> int:
    """Return about how many bytes a row takes on the control socket: JSON writes what is not ASCII six bytes long."""
    total = _ROW_SIZE
    for field in fields(row):
        value = getattr(row, field.name)
        if isinstance(value, str):
            total += len(value) if value.isascii() else 6 * len(value)
        elif isinstance(value, tuple):
            total += sum(_ROW_SIZE + 6 * len(port.name + port.target + port.protocol) for port in value)
    return total


class _Table:
    """Takes rows up to the bounds."""

    def __init__(self) -> None:
        self.size = 0
        self.left_out = False

    def take(self, rows: list[Row], row: Row) -> None:
        self.size += _size(row)
        if len(rows) >= MAX_ROWS or self.size > MAX_SIZE:
            self.left_out = True
        else:
            rows.append(row)


# --- asking ------------------------------------------------------------------------------------------------------


async def services(api: ApiReader, scope: Scope) -> ServiceTable:
    """List services with the numbers of their endpoints.

    Raises
    ------
    CredentialsRefused
        None may be listed, not even in one namespace.
    ApiServerUnavailable
        The API server does not answer, or takes longer than LIST_TIMEOUT.
    UsageError
        There is no such namespace.
    """
    scope.check()
    async with _bounded("services"):
        rows, notices, everywhere = await _rows(api, f"{_CORE}/{{}}services", scope, service_row)
        counts, more = await _count_endpoints(api, scope._replace(everywhere=everywhere))
    if not rows:
        _check_known(scope)
    found = tuple(map(counts.of, rows)) if counts is not None else tuple(rows)
    return ServiceTable(found, (*notices, *more))


async def pods(api: ApiReader, scope: Scope) -> PodTable:
    """List pods; raises as :func:`services`."""
    scope.check()
    async with _bounded("pods"):
        rows, notices, _ = await _rows(api, f"{_CORE}/{{}}pods", scope, pod_row)
    if not rows:
        _check_known(scope)
    return PodTable(tuple(rows), tuple(notices))


def _check_known(scope: Scope) -> None:
    if not scope.everywhere and len(scope.known) > 1 and scope.chosen not in scope.known:
        names = ", ".join(sorted(scope.known)[:10])
        raise UsageError(f"there is no namespace {scope.chosen!r}", hint=f"one of: {names}")


@contextlib.asynccontextmanager
async def _bounded(what: str) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(LIST_TIMEOUT):
            yield
    except TimeoutError:
        raise ApiServerUnavailable(
            f"the API server did not list the {what} within {LIST_TIMEOUT:.0f} s",
            hint="ask for one namespace: -n NAMESPACE",
        ) from None


async def _rows(
    api: ApiReader, path: str, scope: Scope, read: Callable[[dict[str, Any]], Row]
) -> tuple[list[Row], list[str], bool]:
    """Return the rows, notices, and whether they are of all namespaces."""
    rows: list[Row] = []
    notices: list[str] = []
    table = _Table()
    what = path.rpartition("}")[2]
    one = path.format(f"namespaces/{scope.chosen}/")
    everywhere = scope.everywhere
    try:
        async for page in _pages(api, path.format("") if scope.everywhere else one, table):
            for item in page:
                table.take(rows, read(item))
    except CredentialsRefused:
        if not scope.everywhere:
            raise
        notices.append(
            f"you may not list {what} of all namespaces: these are those of {scope.chosen}; another: -n NAMESPACE"
        )
        rows.clear()
        everywhere = False
        async for page in _pages(api, one, table):
            for item in page:
                table.take(rows, read(item))
    if table.left_out:
        notices.append(f"only the first {len(rows)} {what} are shown; fewer: -n NAMESPACE")
    return rows, notices, everywhere


async def _pages(api: ApiReader, path: str, table: _Table) -> AsyncIterator[list[dict[str, Any]]]:
    following = ""
    for _ in range(MAX_PAGES):
        params = {"limit": PAGE, "continue": following} if following else {"limit": PAGE}
        answer = await api.get(path, **params)
        yield _dicts(answer.get("items"))
        following = _continue(answer)
        if not following or table.left_out:
            return
    table.left_out = True


def _continue(answer: dict[str, Any]) -> str:
    token = _dict(answer.get("metadata")).get("continue")
    return token if isinstance(token, str) else ""  # opaque, and longer than a text of ours


async def _count_endpoints(api: ApiReader, scope: Scope) -> tuple[Endpoints | None, tuple[str, ...]]:
    where = "" if scope.everywhere else f"namespaces/{scope.chosen}/"
    counts, table = Endpoints(), _Table()
    try:
        async for page in _pages(api, f"{_SLICES}/{where}endpointslices", table):
            for item in page:
                counts.add(item)
    except ClusterError as error:  # without them there is still a table
        return None, (f"endpoints are not counted: {error.message}",)
    return counts, ("not all endpoints are counted: there are too many",) if table.left_out else ()
