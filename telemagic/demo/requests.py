"""What a request to the demo's API server asks for: the verb that access control knows, and the body. No I/O."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import yaml

from telemagic.demo.kinds import KIND, Target
from telemagic.demo.rbac import Attributes
from telemagic.demo.refusals import Refused, bad_request, not_allowed

if TYPE_CHECKING:
    from collections.abc import Mapping

Json = dict[str, Any]
APPLY: Final = "application/apply-patch+yaml"
MERGE: Final = "application/merge-patch+json"
STRATEGIC: Final = "application/strategic-merge-patch+json"  # what `kubectl apply` of old sends
_TRUE: Final = ("true", "1")
_VERBS: Final = {"POST": "create", "PUT": "update", "PATCH": "patch"}


def is_true(query: Mapping[str, str], name: str) -> bool:
    """Tell whether a parameter of a query is on."""
    return query.get(name) in _TRUE


def attributes(method: str, target: Target, query: Mapping[str, str]) -> Attributes:
    """Return what access control judges a request by; apiserver pkg/endpoints/request/requestinfo.go.

    Raises
    ------
    Refused
        405 for a method that means nothing here.
    """
    if method == "GET":
        verb = "watch" if is_true(query, "watch") else "get" if target.name else "list"
    elif method == "DELETE":
        verb = "delete" if target.name else "deletecollection"
    elif method in _VERBS:
        verb = _VERBS[method]
    else:
        raise not_allowed()
    kind = target.kind
    namespace = target.name if kind == KIND["namespaces"] else target.namespace
    return Attributes(verb, kind.group, kind.plural, target.subresource, namespace, target.name)


def is_dry_run(query: Mapping[str, str]) -> bool:
    """Tell whether nothing is to be changed.

    Raises
    ------
    Refused
        It is another dry run than the one there is.
    """
    asked = query.get("dryRun", "")
    if asked not in ("", "All"):
        raise bad_request(f'dryRun: Unsupported value: "{asked}": supported values: "All"')
    return asked == "All"


def parse(content_type: str, data: bytes) -> Json:
    """Read a body, JSON or YAML; one of no type is taken for JSON.

    Raises
    ------
    Refused
        It is something else, or no object.
    """
    if not data:
        return {}
    media_type = content_type.partition(";")[0].strip().lower()
    try:
        if media_type.endswith("yaml"):
            body = yaml.safe_load(data)
        elif media_type.endswith("json") or not media_type:
            body = json.loads(data)
        else:
            message = f"the body of the request was in an unknown format - {media_type}"
            raise Refused(415, "UnsupportedMediaType", message)
    except (ValueError, yaml.YAMLError) as error:
        raise bad_request(f"the body of the request cannot be read: {error}") from None
    if not isinstance(body, dict):
        raise bad_request("the body of the request is no object")
    return body
