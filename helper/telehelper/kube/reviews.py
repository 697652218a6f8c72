"""Asking an API server what one may do: SelfSubjectAccessReview of authorization.k8s.io/v1."""

from __future__ import annotations

from typing import Any, Final

REVIEWS: Final = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


def access_review(verb: str, resource: str, namespace: str = "", group: str = "") -> dict[str, Any]:
    """Return the object to create under :data:`REVIEWS`.

    Parameters
    ----------
    resource
        With its subresource: ``pods/portforward``.
    namespace
        Empty for the whole cluster.
    """
    plural, _, subresource = resource.partition("/")
    attributes = {
        "namespace": namespace,
        "verb": verb,
        "group": group,
        "resource": plural,
        "subresource": subresource,
    }
    return {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
