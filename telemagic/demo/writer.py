"""Changes of the demo's objects by its users: created, applied, patched, replaced and deleted as the API does it.

What was checked before: that the user may do it. Here: that the object is one, that its place is there and free, that
nobody gives rights away that they do not have, and what the server fills in. A dry run goes all the way but the last
step.
"""

from __future__ import annotations

import copy
import secrets
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from telemagic.demo import merging, rbac, validation
from telemagic.demo.kinds import KIND, RBAC, Target
from telemagic.demo.objects import NODE_NAME, timestamp
from telemagic.demo.refusals import already_exists, bad_request, conflict, forbidden, invalid, not_found

if TYPE_CHECKING:
    from telemagic.demo.kinds import Kind
    from telemagic.demo.rbac import Authorizer, User
    from telemagic.demo.service_addresses import ServiceAddresses
    from telemagic.demo.store import Store

Json = dict[str, Any]
_SUFFIX: Final = (
    "bcdfghjklmnpqrstvwxz2456789"  # kubernetes apimachinery pkg/util/rand: no vowels, no rude words
)
_SUFFIX_LENGTH: Final = 5
_OURS: Final = ("uid", "creationTimestamp", "generation", "resourceVersion", "deletionTimestamp")
_PROTECTED: Final = frozenset({"default", "kube-system"})
_GRACE: Final = 30  # seconds; a pod's terminationGracePeriodSeconds, and it ends sooner here


@dataclass(frozen=True, slots=True)
class Written:
    """The outcome of a change: the object, and whether it is new."""

    object: Json
    created: bool = False


class Writer:
    """Changes a store.

    Parameters
    ----------
    store
        What to change.
    authorizer
        Says who may give which rights away.
    addresses
        Where services get theirs.
    """

    def __init__(self, store: Store, authorizer: Authorizer, addresses: ServiceAddresses) -> None:
        self._store = store
        self._authorizer = authorizer
        self._addresses = addresses

    def create(self, target: Target, body: Json, user: User, *, dry_run: bool) -> Written:
        """Add an object.

        Raises
        ------
        Refused
            It is none, or there is no place for it.
        """
        item = _new(target, body)
        self._check_place(target, item["metadata"]["name"])
        name = item["metadata"]["name"]
        if self._store.get(target.kind, target.namespace, name) is not None:
            raise already_exists(target.kind, name)
        return Written(self._finish(target, item, None, user, dry_run=dry_run), created=True)

    def apply(self, target: Target, body: Json, user: User, *, dry_run: bool) -> Written:
        """Create an object, or give the one that is there what it does not have; see :mod:`merging`."""
        before = self._store.get(target.kind, target.namespace, target.name)
        wanted = _identified(target, body)
        if before is None:
            return self.create(target, wanted, user, dry_run=dry_run)
        return Written(self._finish(target, merging.apply(before, wanted), before, user, dry_run=dry_run))

    def merge_strategic(self, target: Target, patch: Json, user: User, *, dry_run: bool) -> Written:
        """Change an object by a strategic merge patch."""
        before = self._existing(target)
        item = _identified(target, merging.apply(before, patch))
        return Written(self._finish(target, item, before, user, dry_run=dry_run))

    def merge(self, target: Target, patch: Json, user: User, *, dry_run: bool) -> Written:
        """Change an object by a JSON merge patch."""
        before = self._existing(target)
        item = _identified(target, merging.merge_patch(before, patch))
        return Written(self._finish(target, item, before, user, dry_run=dry_run))

    def replace(self, target: Target, body: Json, user: User, *, dry_run: bool) -> Written:
        """Put another object in the place of one; it must have been made of the present one, if it says of which."""
        before = self._existing(target)
        item = _identified(target, body)
        asked = item["metadata"].get("resourceVersion")
        if asked and asked != before["metadata"]["resourceVersion"]:
            why = (
                "the object has been modified; please apply your changes to the latest version and try again"
            )
            raise conflict(target.kind, target.name, why)
        return Written(self._finish(target, item, before, user, dry_run=dry_run))

    def delete(self, target: Target, options: Json, *, dry_run: bool) -> Written:
        """Remove an object, or begin to: pods and namespaces go when what is in them has ended."""
        before = self._existing(target)
        kind, metadata = target.kind, before["metadata"]
        if kind == KIND["namespaces"] and target.name in _PROTECTED:
            raise forbidden(kind, target.name, "this namespace may not be deleted")
        uid = (options.get("preconditions") or {}).get("uid")
        if uid and uid != metadata.get("uid"):
            why = (
                f"Precondition failed: UID in precondition: {uid}, UID in object meta: {metadata.get('uid')}"
            )
            raise conflict(kind, target.name, why)
        if dry_run:
            return Written(before)
        if options.get("propagationPolicy") == "Orphan":
            self._orphan(before)
        if kind in (KIND["pods"], KIND["namespaces"]) and not is_static(kind, before):
            return Written(self._begin_deletion(kind, before))
        self._store.delete(kind, target.namespace, target.name)
        return Written(before)

    def _begin_deletion(self, kind: Kind, before: Json) -> Json:
        if "deletionTimestamp" in before["metadata"]:
            return before
        going = copy.deepcopy(before)
        going["metadata"]["deletionTimestamp"] = timestamp(time.time())
        if kind == KIND["namespaces"]:
            going["status"] = {"phase": "Terminating"}
        else:
            going["metadata"]["deletionGracePeriodSeconds"] = _GRACE
        return self._store.put(kind, going)

    def _orphan(self, owner: Json) -> None:
        uid, namespace = owner["metadata"].get("uid"), owner["metadata"].get("namespace", "")
        for kind in KIND.values():
            for item in self._store.list(kind, namespace):
                owners = item["metadata"].get("ownerReferences") or []
                if any(one.get("uid") == uid for one in owners):
                    freed = copy.deepcopy(item)
                    freed["metadata"]["ownerReferences"] = [one for one in owners if one.get("uid") != uid]
                    self._store.put(kind, freed)

    def _existing(self, target: Target) -> Json:
        found = self._store.get(target.kind, target.namespace, target.name)
        if found is None:
            raise not_found(target.kind, target.name)
        return found

    def _check_place(self, target: Target, name: str) -> None:
        if not target.kind.namespaced:
            return
        if not target.namespace:
            raise bad_request("an empty namespace may not be set during creation")
        place = self._store.get(KIND["namespaces"], "", target.namespace)
        if place is None:
            raise not_found(KIND["namespaces"], target.namespace)
        if "deletionTimestamp" in place["metadata"]:
            why = (
                f"unable to create new content in namespace {target.namespace} because it is being terminated"
            )
            raise forbidden(target.kind, name, why)

    def _finish(self, target: Target, item: Json, before: Json | None, user: User, *, dry_run: bool) -> Json:
        """Check an object that a request has made, fill in what the server does, and store it."""
        kind = target.kind
        validation.check_shape(kind, item)
        validation.check(kind, item)
        if kind.group == RBAC:
            self._check_escalation(target, item, before, user)
        if kind == KIND["services"]:
            item = self._service(item, before, dry_run=dry_run)
        if kind.group in ("", "apps"):  # whose status is not the users' to write
            item.pop("status", None)
            if before is not None and "status" in before:
                item["status"] = before["status"]
        _default(kind, item)
        _own_metadata(item, before)
        if dry_run:
            return {"apiVersion": kind.group_version, "kind": kind.kind, **item}
        return self._store.put(kind, item)

    def _service(self, item: Json, before: Json | None, *, dry_run: bool) -> Json:
        spec = item["spec"]
        for port in spec.get("ports") or ():
            port.setdefault("protocol", "TCP")
            port.setdefault("targetPort", port["port"])
        if before is not None:
            own = before["spec"].get("clusterIPs")
            if own and (spec.get("clusterIPs") or own) != own:
                why = "may not change once set"
                raise invalid(
                    KIND["services"],
                    item["metadata"]["name"],
                    [("spec.clusterIPs[0]", f'Invalid value: "{spec["clusterIPs"][0]}"', why)],
                )
            return {**item, "spec": {**before["spec"], **spec}}
        others = self._store.list(KIND["services"])
        return self._addresses.assign(item, others, dry_run=dry_run)

    def _check_escalation(self, target: Target, item: Json, before: Json | None, user: User) -> None:
        """Refuse rights that the user does not have; kubernetes pkg/registry/rbac, policybased storage."""
        kind, namespace = target.kind, target.namespace
        name = item["metadata"]["name"]
        if kind.plural.endswith("roles"):
            verb, resource = "escalate", kind.plural
            wanted = [rbac.Rule.of(rule) for rule in item.get("rules") or ()]
            about = name
        else:
            role = item["roleRef"]
            if before is not None and before["roleRef"] != role:
                why = "cannot change roleRef"
                raise invalid(kind, name, [("roleRef", "Invalid value", why)])
            verb, resource, about = "bind", f"{role['kind'].lower()}s", str(role["name"])
            wanted = self._authorizer.rules_of(role, namespace)
        asked = rbac.Attributes(verb, RBAC, resource, namespace=namespace, name=about)
        if self._authorizer.allows(user, asked):
            return
        lacking = self._authorizer.lacking(user, wanted, namespace)
        if lacking:
            listed = "\n".join(_rule_text(rule) for rule in lacking)
            groups = " ".join(f'"{group}"' for group in user.groups)
            why = (
                f'user "{user.name}" (groups=[{groups}]) is attempting to grant RBAC permissions '
                f"not currently held:\n{listed}"
            )
            raise forbidden(kind, name, why)


def is_static(kind: Kind, item: Json) -> bool:
    """Tell whether a pod is one that no kubelet here runs: it is only shown."""
    return kind == KIND["pods"] and bool(item["spec"].get("hostNetwork"))


def generated(prefix: str) -> str:
    """Return a name as `generateName` makes it."""
    return prefix + suffix()


def suffix() -> str:
    """Return the random end of a generated name."""
    return "".join(secrets.choice(_SUFFIX) for _ in range(_SUFFIX_LENGTH))


def _new(target: Target, body: Json) -> Json:
    metadata = body.get("metadata")
    if not isinstance(metadata, dict):
        metadata = {}
    if not metadata.get("name") and isinstance(metadata.get("generateName"), str):
        metadata = {**metadata, "name": generated(metadata["generateName"])}
    metadata = {"name": "", **metadata}
    if metadata.get("resourceVersion"):
        raise bad_request("resourceVersion should not be set on objects to be created")
    return _identified(target, {**body, "metadata": metadata})


def _identified(target: Target, body: Json) -> Json:
    """Return a copy of an object that is of the kind and at the place that the path names; refuse another's."""
    kind = target.kind
    for field, expected in (("apiVersion", kind.group_version), ("kind", kind.kind)):
        if body.get(field, expected) != expected:
            raise bad_request(
                f'{body.get("kind")} in version "{body.get("apiVersion", "")}" '
                f"cannot be handled as a {kind.kind}: the path is of {kind.qualified}"
            )
    item = copy.deepcopy(body)
    metadata = item.get("metadata")
    if not isinstance(metadata, dict):
        raise bad_request(f"{kind.kind} has no metadata")
    item["metadata"] = metadata = {name: value for name, value in metadata.items() if value is not None}
    if target.name and metadata.get("name", target.name) != target.name:
        raise bad_request(
            f"the name of the object ({metadata['name']}) does not match the name on the URL ({target.name})"
        )
    if target.name:
        metadata["name"] = target.name
    if kind.namespaced:
        if (metadata.get("namespace") or target.namespace) != target.namespace:
            raise bad_request(
                "the namespace of the provided object does not match the namespace sent on the request"
            )
        metadata["namespace"] = target.namespace
    else:
        metadata.pop("namespace", None)
    return item


def _own_metadata(item: Json, before: Json | None) -> None:
    """Set what only the server says of an object."""
    metadata = item["metadata"]
    for field in _OURS:
        metadata.pop(field, None)
    metadata.pop("managedFields", None)
    if before is None:
        metadata["uid"] = str(uuid.uuid4())
        metadata["creationTimestamp"] = timestamp(time.time())
        if "spec" in item:
            metadata["generation"] = 1
        return
    for field in _OURS:
        if field in before["metadata"]:
            metadata[field] = before["metadata"][field]
    if "generation" in metadata and item.get("spec") != before.get("spec"):
        metadata["generation"] += 1


def _default(kind: Kind, item: Json) -> None:
    """Fill in what readers rely on."""
    if kind == KIND["namespaces"]:
        item.setdefault("spec", {"finalizers": ["kubernetes"]})
        item.setdefault("status", {"phase": "Active"})
        labels = item["metadata"].setdefault("labels", {})
        labels["kubernetes.io/metadata.name"] = item["metadata"]["name"]
    elif kind == KIND["services"]:
        item["spec"].setdefault("type", "ClusterIP")
        item["spec"].setdefault("sessionAffinity", "None")
        item.setdefault("status", {"loadBalancer": {}})
    elif kind == KIND["deployments"]:
        if item["spec"].get("replicas") is None:
            item["spec"]["replicas"] = 1
        item["spec"].setdefault("strategy", {"type": "RollingUpdate"})
        item.setdefault("status", {})
    elif kind == KIND["pods"]:
        if not item["spec"].get("hostNetwork"):
            item["spec"]["nodeName"] = NODE_NAME
        item["spec"].setdefault("restartPolicy", "Always")
        item["spec"].setdefault("serviceAccountName", "default")
        item.setdefault("status", {"phase": "Pending"})


def _rule_text(rule: rbac.Rule) -> str:
    """Write a rule as Go prints one, which is what messages of the real server have."""

    def several(values: tuple[str, ...]) -> str:
        return "[" + ", ".join(f'"{value}"' for value in values) + "]"

    names = f", ResourceNames:{several(rule.names)}" if rule.names else ""
    return (
        f"{{APIGroups:{several(rule.groups)}, Resources:{several(rule.resources)}"
        f"{names}, Verbs:{several(rule.verbs)}}}"
    )
