"""Whether an object is one: the shape of what the demo's API server itself reads, and the rules that matter. No I/O."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from telemagic.demo.kinds import RBAC
from telemagic.demo.refusals import bad_request, invalid, invalid_value

if TYPE_CHECKING:
    from telemagic.demo.kinds import Kind

Json = dict[str, Any]
Problem = tuple[str, str, str]

_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")  # RFC 1123 §2.1 and RFC 1035 §2.3.4
_SUBDOMAIN: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_PATH_SEGMENT: Final = re.compile(r"(?!\.\.?$)[^/%]+")  # what RBAC takes for a name
_LABEL_NAMES: Final = frozenset({"namespaces", "services"})
_LABEL_RULE: Final = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', "
    "and must start and end with an alphanumeric character"
)
_READ_GROUPS: Final = ("", "apps", RBAC, "apiextensions.k8s.io")
_STRINGS: Final = {"*": str}  # a map to strings
_CONTAINER: Final[Json] = {
    "name": str,
    "image": str,
    "command": [str],
    "args": [str],
    "env": [{"name": str}],
    "ports": [{"name": str, "containerPort": int, "protocol": str}],
}
_POD: Final[Json] = {
    "containers": [_CONTAINER],
    "serviceAccountName": str,
    "automountServiceAccountToken": bool,
    "hostNetwork": bool,
}
_RULES: Final[Json] = {
    "rules": [{"verbs": [str], "apiGroups": [str], "resources": [str], "resourceNames": [str]}]
}
_BINDING: Final[Json] = {
    "roleRef": {"apiGroup": str, "kind": str, "name": str},
    "subjects": [{"kind": str, "name": str, "namespace": str}],
}
_SHAPES: Final[dict[str, Json]] = {
    "pods": {"spec": _POD},
    "services": {
        "spec": {
            "type": str,
            "clusterIP": str,
            "clusterIPs": [str],
            "ipFamilies": [str],
            "ipFamilyPolicy": str,
            "selector": _STRINGS,
            "ports": [{"name": str, "port": int, "protocol": str}],
        }
    },
    "deployments": {
        "spec": {
            "replicas": int,
            "selector": {"matchLabels": _STRINGS},
            "template": {"metadata": {"labels": _STRINGS}, "spec": _POD},
        }
    },
    "serviceaccounts": {"automountServiceAccountToken": bool},
    "roles": _RULES,
    "clusterroles": _RULES,
    "rolebindings": _BINDING,
    "clusterrolebindings": _BINDING,
    "customresourcedefinitions": {
        "spec": {
            "group": str,
            "scope": str,
            "names": {"plural": str, "kind": str, "singular": str},
            "versions": [{"name": str, "served": bool}],
        }
    },
}
_METADATA: Final[Json] = {
    "name": str,
    "generateName": str,
    "namespace": str,
    "resourceVersion": str,
    "labels": _STRINGS,
    "annotations": _STRINGS,
    "ownerReferences": [{"kind": str, "name": str, "uid": str}],
    "finalizers": [str],
}


def check_shape(kind: Kind, item: Json) -> None:
    """Refuse an object whose fields have other types than this kind's.

    Raises
    ------
    Refused
        400, as the real server's decoder does.
    """
    shape: Json = {"metadata": _METADATA}
    if kind.group in _READ_GROUPS:
        shape |= _SHAPES.get(kind.plural, {})
    wrong = _mismatch(item, shape, "")
    if wrong:
        version = kind.group_version.rpartition("/")[2]
        raise bad_request(f'{kind.kind} in version "{version}" cannot be handled as a {kind.kind}: {wrong}')


def _mismatch(value: Any, shape: Any, path: str) -> str:  # noqa: ANN401 - JSON
    """Return what is wrong, or nothing. What is left out or null is right."""
    if value is None:
        return ""
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return f"{path or 'object'}: expected a map, got {_typename(value)}"
        inside = [
            (one, shape.get("*", shape.get(name)), f"{path}.{name}".lstrip("."))
            for name, one in value.items()
            if "*" in shape or name in shape
        ]
    elif isinstance(shape, list):
        if not isinstance(value, list):
            return f"{path}: expected a list, got {_typename(value)}"
        inside = [(one, shape[0], f"{path}[{number}]") for number, one in enumerate(value)]
        if any(one is None for one in value):
            return f"{path}: a list must not hold null"
    else:
        is_wrong = not isinstance(value, shape) or (isinstance(value, bool) and shape is not bool)
        return f"{path}: expected {shape.__name__}, got {_typename(value)}" if is_wrong else ""
    return next(filter(None, (_mismatch(*one) for one in inside)), "")


def _typename(value: object) -> str:
    return {"dict": "a map", "list": "a list"}.get(type(value).__name__, type(value).__name__)


def check(kind: Kind, item: Json) -> None:
    """Refuse an object that breaks the rules of its kind; its shape has been checked.

    Raises
    ------
    Refused
        422 with every rule it breaks.
    """
    name = item["metadata"].get("name") or ""
    problems = _name(kind, name)
    if kind.group in _READ_GROUPS:
        problems += _RULES_OF.get(kind.plural, lambda _: [])(item)
    if problems:
        raise invalid(kind, name, problems)


def _name(kind: Kind, name: str) -> list[Problem]:
    field = "metadata.name"
    if not name:
        return [(field, "Required value", "name or generateName is required")]
    if kind.group == RBAC:
        return [] if _PATH_SEGMENT.fullmatch(name) else [(field, invalid_value(name), "may not contain '/'")]
    pattern = _LABEL if kind.plural in _LABEL_NAMES else _SUBDOMAIN
    return [] if pattern.fullmatch(name) else [(field, invalid_value(name), _LABEL_RULE)]


def _required(value: object, field: str) -> list[Problem]:
    return [] if value else [(field, "Required value", "")]


def _containers(spec: Json, field: str) -> list[Problem]:
    containers = spec.get("containers") or ()
    problems = _required(containers, f"{field}.containers")
    for number, container in enumerate(containers):
        for part in ("name", "image"):
            problems += _required(container.get(part), f"{field}.containers[{number}].{part}")
    return problems


def _deployment(item: Json) -> list[Problem]:
    spec = item.get("spec") or {}
    template = spec.get("template") or {}
    selected = (spec.get("selector") or {}).get("matchLabels") or {}
    labels = (template.get("metadata") or {}).get("labels") or {}
    problems = _required(selected, "spec.selector")
    if not selected.items() <= labels.items():
        why = "`selector` does not match template `labels`"
        problems.append(("spec.template.metadata.labels", invalid_value(labels), why))
    if (spec.get("replicas") or 0) < 0:
        why = "must be greater than or equal to 0"
        problems.append(("spec.replicas", invalid_value(spec["replicas"]), why))
    return problems + _containers(template.get("spec") or {}, "spec.template.spec")


def _service(item: Json) -> list[Problem]:
    spec = item.get("spec") or {}
    ports = spec.get("ports") or ()
    if spec.get("type") == "ExternalName":
        return _required(spec.get("externalName"), "spec.externalName")
    problems = [] if ports or spec.get("clusterIP") == "None" else _required(ports, "spec.ports")
    for number, port in enumerate(ports):
        if not 0 < (port.get("port") or 0) < 1 << 16:
            why = "must be between 1 and 65535, inclusive"
            problems.append((f"spec.ports[{number}].port", invalid_value(port.get("port")), why))
        name = port.get("name")
        if len(ports) > 1 and not name:
            problems += _required("", f"spec.ports[{number}].name")
        if name and not _LABEL.fullmatch(name):
            problems.append((f"spec.ports[{number}].name", invalid_value(name), _LABEL_RULE))
    return problems


def _role(item: Json) -> list[Problem]:
    problems: list[Problem] = []
    for number, rule in enumerate(item.get("rules") or ()):
        problems += _required(rule.get("verbs"), f"rules[{number}].verbs")
        if not rule.get("nonResourceURLs"):
            for part in ("apiGroups", "resources"):
                problems += _required(rule.get(part), f"rules[{number}].{part}")
    return problems


def _binding(item: Json) -> list[Problem]:
    role = item.get("roleRef") or {}
    problems = _required(role.get("name"), "roleRef.name")
    possible = ("Role", "ClusterRole") if item["metadata"].get("namespace") else ("ClusterRole",)
    if role.get("kind") not in possible:
        supported = ", ".join(f'"{kind}"' for kind in possible)
        problems.append(
            (
                "roleRef.kind",
                invalid_value(role.get("kind")).replace("Invalid", "Unsupported", 1),
                f"supported values: {supported}",
            )
        )
    for number, subject in enumerate(item.get("subjects") or ()):
        problems += _required(subject.get("name"), f"subjects[{number}].name")
        if subject.get("kind") == "ServiceAccount":
            problems += _required(subject.get("namespace"), f"subjects[{number}].namespace")
    return problems


def _definition(item: Json) -> list[Problem]:
    spec = item.get("spec") or {}
    names = spec.get("names") or {}
    problems = _required(spec.get("group"), "spec.group") + _required(spec.get("versions"), "spec.versions")
    for part in ("plural", "kind"):
        problems += _required(names.get(part), f"spec.names.{part}")
    if spec.get("scope") not in ("Namespaced", "Cluster"):
        problems.append(("spec.scope", invalid_value(spec.get("scope")), "Namespaced or Cluster"))
    if not problems and item["metadata"]["name"] != f"{names['plural']}.{spec['group']}":
        problems.append(("metadata.name", invalid_value(item["metadata"]["name"]), "must be PLURAL.GROUP"))
    if not all(version.get("name") for version in spec.get("versions") or ()):
        problems += _required("", "spec.versions.name")
    return problems


_RULES_OF: Final = {
    "pods": lambda item: _containers(item.get("spec") or {}, "spec"),
    "deployments": _deployment,
    "services": _service,
    "customresourcedefinitions": _definition,
    "roles": _role,
    "clusterroles": _role,
    "rolebindings": _binding,
    "clusterrolebindings": _binding,
}
