"""The objects that a traffic manager in a cluster consists of: the shipped YAML, made to fit; pure but for reading it."""

from __future__ import annotations

import re
from copy import deepcopy
from importlib.resources import files
from typing import Any, Final

import yaml

from telehelper import __version__
from telehelper.errors import UsageError

Json = dict[str, Any]

NAMESPACE: Final = "telemagic"  # of the shipped files
IMAGE: Final = f"telemagic/manager:{__version__}"
NAME: Final = "telemagic-manager"
OURS: Final = "app.kubernetes.io/managed-by=telemagic"  # the label on all that we make
_DIRECTORY: Final = files("telehelper.manager") / "manifests"
_LABEL: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")  # RFC 1123 §2.1, as Kubernetes has it
_IMAGE: Final = re.compile(r"[a-z0-9][\w./:@-]{0,254}", re.ASCII | re.IGNORECASE)
# Kind → the plural in its path, and whether it is in a namespace.
_KINDS: Final = {
    "Namespace": ("namespaces", False),
    "ServiceAccount": ("serviceaccounts", True),
    "ClusterRole": ("clusterroles", False),
    "ClusterRoleBinding": ("clusterrolebindings", False),
    "Role": ("roles", True),
    "Deployment": ("deployments", True),
}


def manifests(namespace: str = NAMESPACE, image: str = IMAGE) -> list[Json]:
    """Return the objects, in the order in which they must be made.

    A second manager, in another namespace, gets a ClusterRoleBinding of its own; the ClusterRole is shared.

    Raises
    ------
    UsageError
        The namespace or the image cannot be one.
    """
    if not _LABEL.fullmatch(namespace):
        raise UsageError(
            f"{namespace!r:.60} cannot be a namespace", hint="lower-case letters, digits and dashes"
        )
    if not _IMAGE.fullmatch(image):
        raise UsageError(
            f"{image!r:.60} is no image", hint="write it like registry.example.com/telemagic/manager:1.0"
        )
    return [_fitted(found, namespace, image) for found in _shipped()]


def _shipped() -> list[Json]:
    kustomization = yaml.safe_load((_DIRECTORY / "kustomization.yaml").read_text())
    return [
        found
        for file in kustomization["resources"]
        for found in yaml.safe_load_all((_DIRECTORY / file).read_text())
    ]


def _fitted(shipped: Json, namespace: str, image: str) -> Json:
    found = deepcopy(shipped)
    metadata = found["metadata"]
    if "namespace" in metadata:
        metadata["namespace"] = namespace
    if found["kind"] == "Namespace":
        metadata["name"] = namespace
    for subject in found.get("subjects", ()):
        subject["namespace"] = namespace
    if found["kind"] == "ClusterRoleBinding" and namespace != NAMESPACE:
        metadata["name"] += f"-{namespace}"
    if found["kind"] == "Deployment":
        for container in found["spec"]["template"]["spec"]["containers"]:
            container["image"] = image
    return found


def collection(kind: str, api_version: str, namespace: str = "") -> str:
    """Return the path under which the API has objects of a kind."""
    plural, is_namespaced = _KINDS[kind]
    root = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
    return f"{root}/namespaces/{namespace}/{plural}" if is_namespaced else f"{root}/{plural}"


def path(manifest: Json) -> str:
    """Return the path of an object."""
    metadata = manifest["metadata"]
    where = collection(manifest["kind"], manifest["apiVersion"], metadata.get("namespace", ""))
    return f"{where}/{metadata['name']}"


def title(manifest: Json) -> str:
    """Return what people call an object: ``deployment telemagic/telemagic-manager``."""
    metadata = manifest["metadata"]
    where = f"{metadata['namespace']}/" if "namespace" in metadata else ""
    return f"{manifest['kind'].lower()} {where}{metadata['name']}"


def to_yaml(objects: list[Json]) -> str:
    """Return objects as a file for ``kubectl apply -f``."""
    return yaml.safe_dump_all(objects, sort_keys=False)
