"""Questions about one's own rights, answered by the rules that requests are judged by; authorization.k8s.io/v1."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from telemagic.demo.rbac import Attributes
from telemagic.demo.refusals import bad_request

if TYPE_CHECKING:
    from collections.abc import Callable

    from telemagic.demo.rbac import Authorizer, User

Json = dict[str, Any]
_PATHS: Final[dict[tuple[str, ...], str]] = {
    ("apis", "authorization.k8s.io", "v1", "selfsubjectaccessreviews"): "SelfSubjectAccessReview",
    ("apis", "authorization.k8s.io", "v1", "selfsubjectrulesreviews"): "SelfSubjectRulesReview",
}


def review_of(parts: list[str]) -> str:
    """Return which review a path asks for; empty if it is none."""
    return _PATHS.get(tuple(parts), "")


def answer(
    kind: str,
    body: Json,
    user: User,
    authorizer: Authorizer,
    is_forbidden: Callable[[Attributes], bool] = lambda _: False,
) -> Json:
    """Fill the status of a review in; `is_forbidden` tells what nobody may do, whatever the rules say.

    Raises
    ------
    Refused
        It asks nothing that can be answered.
    """
    spec = body.get("spec")
    if not isinstance(spec, dict):
        raise bad_request(f"{kind} has no spec")
    if kind.endswith("AccessReview"):
        status = _access(spec, user, authorizer, is_forbidden)
    else:
        status = _rules(spec, user, authorizer)
    head = {"kind": kind, "apiVersion": "authorization.k8s.io/v1", "metadata": {}}
    return {**head, "spec": spec, "status": status}


def _access(
    spec: Json, user: User, authorizer: Authorizer, is_forbidden: Callable[[Attributes], bool]
) -> Json:
    asked = spec.get("resourceAttributes")
    if not isinstance(asked, dict):
        if isinstance(spec.get("nonResourceAttributes"), dict):
            return {"allowed": spec["nonResourceAttributes"].get("verb") == "get"}
        raise bad_request("exactly one of nonResourceAttributes or resourceAttributes must be specified")
    fields = ("verb", "group", "resource", "subresource", "namespace", "name")
    attributes = Attributes(*(str(asked.get(field) or "") for field in fields))
    why = None if is_forbidden(attributes) else authorizer.why(user, attributes)
    return {"allowed": why is not None, **({"reason": why} if why else {})}


def _rules(spec: Json, user: User, authorizer: Authorizer) -> Json:
    namespace = spec.get("namespace")
    if not isinstance(namespace, str) or not namespace:
        raise bad_request("no namespace on request")
    rules = [rule.json for rule in authorizer.rules(user, namespace)]
    return {"resourceRules": rules, "nonResourceRules": [], "incomplete": False}
