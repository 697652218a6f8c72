"""How the demo's API server says no: the failures of the Kubernetes API, worded as the real server words them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from telemagic.demo.kinds import Kind


class Refused(Exception):
    """A request that is answered with a failure.

    Attributes
    ----------
    code, reason, message
        Of the Status object.
    details
        Whom it is about: name, group, kind, and causes.
    """

    def __init__(self, code: int, reason: str, message: str, details: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details or {}

    @property
    def status(self) -> dict[str, Any]:
        """The Status object of the answer."""
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            **({"details": self.details} if self.details else {}),
            "code": self.code,
        }


def unknown_path() -> Refused:
    """Return what a path that nobody serves is answered with."""
    return Refused(404, "NotFound", "the server could not find the requested resource")


def bad_request(message: str) -> Refused:
    """Return a 400."""
    return Refused(400, "BadRequest", message)


def not_allowed(message: str = "the server does not allow this method on the requested resource") -> Refused:
    """Return a 405."""
    return Refused(405, "MethodNotAllowed", message)


def unauthorized() -> Refused:
    """Return a 401: nobody knows who this is."""
    return Refused(401, "Unauthorized", "Unauthorized")


def not_found(kind: Kind, name: str) -> Refused:
    """Return the 404 for an object that is not there."""
    return Refused(404, "NotFound", f'{kind.qualified} "{name}" not found', _details(kind, name))


def already_exists(kind: Kind, name: str) -> Refused:
    """Return the 409 for a name that is taken."""
    return Refused(409, "AlreadyExists", f'{kind.qualified} "{name}" already exists', _details(kind, name))


def conflict(kind: Kind, name: str, why: str) -> Refused:
    """Return the 409 for a change of something that has changed since."""
    message = f'Operation cannot be fulfilled on {kind.qualified} "{name}": {why}'
    return Refused(409, "Conflict", message, _details(kind, name))


def forbidden(kind: Kind, name: str, why: str) -> Refused:
    """Return the 403 of a resource; apimachinery pkg/api/errors, NewForbidden."""
    what = f'{kind.qualified} "{name}"' if name else kind.qualified
    return Refused(403, "Forbidden", f"{what} is forbidden: {why}", _details(kind, name))


def invalid(kind: Kind, name: str, problems: list[tuple[str, str, str]]) -> Refused:
    """Return the 422 for an object that breaks rules.

    Parameters
    ----------
    kind, name
        Of the object.
    problems
        Each with its field, its type as the API's FieldValue… reasons are shown (``Invalid value: "x"``,
        ``Required value``), and an explanation.
    """
    texts = [f"{field}: {type_}{f': {why}' if why else ''}" for field, type_, why in problems]
    joined = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
    causes = [
        {"field": field, "message": text.removeprefix(f"{field}: ")}
        for (field, _, _), text in zip(problems, texts, strict=True)
    ]
    details = {"name": name, "group": kind.group, "kind": kind.kind, "causes": causes}
    qualified = f"{kind.kind}.{kind.group}" if kind.group else kind.kind
    return Refused(422, "Invalid", f'{qualified} "{name}" is invalid: {joined}', details)


def invalid_value(value: object) -> str:
    """Write a value that is refused as the API does."""
    return f"Invalid value: {json.dumps(value)}"


def _details(kind: Kind, name: str) -> dict[str, Any]:
    found = {"name": name, "group": kind.group, "kind": kind.plural}
    return {key: value for key, value in found.items() if value}
