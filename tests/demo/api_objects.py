"""API objects for the demo's unit tests, as small as they may be."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]
RBAC = "rbac.authorization.k8s.io"


def named(name: str, namespace: str = "", **more: Any) -> Json:
    """Return an object's metadata."""
    return {"name": name, **({"namespace": namespace} if namespace else {}), **more}


def container(image: str = "telemagic/manager:dev", **more: Any) -> Json:
    return {"name": "main", "image": image, **more}


def deployment(name: str, namespace: str = "", replicas: int = 1, **more: Any) -> Json:
    """Return a Deployment; `more` goes into its container."""
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container(**more)]}}
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    return {"metadata": named(name, namespace), "spec": spec}


def service(name: str, namespace: str = "", **more: Any) -> Json:
    """Return a Service that selects the app of its name."""
    spec = {"selector": {"app": name}, "ports": [{"name": "http", "port": 80}], **more}
    return {"metadata": named(name, namespace), "spec": spec}


def role(name: str, namespace: str = "", verbs: str = "get", resources: str = "pods") -> Json:
    rule = {"apiGroups": [""], "resources": resources.split(), "verbs": verbs.split()}
    return {"metadata": named(name, namespace), "rules": [rule]}


def binding(name: str, namespace: str = "", kind: str = "", to: str = "r", user: str = "alice") -> Json:
    reference = {"apiGroup": RBAC, "kind": kind or ("Role" if namespace else "ClusterRole"), "name": to}
    return {
        "metadata": named(name, namespace),
        "roleRef": reference,
        "subjects": [{"kind": "User", "apiGroup": RBAC, "name": user}],
    }
