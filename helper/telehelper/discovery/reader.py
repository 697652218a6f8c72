"""What discovery needs of an API client, and a stand-in for tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from telehelper.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping


class ApiReader(Protocol):
    """An API client; failures are ClusterError, with slug "api-not-found" for a 404 and CredentialsRefused for a 403."""

    async def get(self, path: str, **params: str) -> dict[str, Any]:
        """GET a path and return the JSON object."""

    async def create(self, path: str, body: Mapping[str, Any], *, dry_run: bool = False) -> dict[str, Any]:
        """POST an object and return what became, or with `dry_run` would have become, of it."""

    def watch(self, path: str, **params: str) -> AsyncGenerator[dict[str, Any], None]:
        """Yield ``{"type": "LIST", "object": list}``, then ADDED, MODIFIED and DELETED objects; again from LIST at will."""


class NotThere(ClusterError):
    """The stand-in's 404."""

    slug = "api-not-found"


class FakeApiReader:
    """An API server in a dictionary, for tests.

    Parameters
    ----------
    objects
        What each path answers: an object, or the error to raise. Other paths are not there. Nothing can be watched, so
        what is put in later is found by polling.
    created
        Answers to POST; without it nothing may be created.
    """

    def __init__(
        self,
        objects: dict[str, dict[str, Any] | ClusterError],
        created: Callable[[str, Mapping[str, Any]], dict[str, Any]] | None = None,
    ) -> None:
        self.objects = objects
        self.created = created
        self.asked: list[str] = []

    async def get(self, path: str, **_params: str) -> dict[str, Any]:
        """See :class:`ApiReader`."""
        self.asked.append(path)
        found = self.objects.get(path, NotThere(f"there is no {path}"))
        if isinstance(found, ClusterError):
            raise found
        return found

    async def create(self, path: str, body: Mapping[str, Any], *, dry_run: bool = False) -> dict[str, Any]:
        """See :class:`ApiReader`."""
        self.asked.append(f"{'dry run' if dry_run else 'POST'} {path}")
        if self.created is None:
            raise NotThere(f"there is no {path}")
        return self.created(path, body)

    async def watch(self, path: str, **params: str) -> AsyncGenerator[dict[str, Any], None]:
        """See :class:`ApiReader`."""
        yield {"type": "LIST", "object": await self.get(path, **params)}
        raise NotThere(f"{path} cannot be watched here")
