"""Who may do what: role-based access control as Kubernetes evaluates it, over the objects in the store.

Rules only ever allow. A ClusterRoleBinding gives its role's rules everywhere, a RoleBinding gives them in its own
namespace, and members of `system:masters` may do everything without any (kubernetes pkg/apis/rbac/v1 and
pkg/registry/rbac/validation). Left out: `nonResourceURLs`, aggregation of ClusterRoles, impersonation.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

Json = dict[str, Any]
AUTHENTICATED: Final = "system:authenticated"
MASTERS: Final = "system:masters"  # may do everything, whatever the roles say
_SERVICE_ACCOUNTS: Final = "system:serviceaccounts"
_ANY: Final = "*"


@dataclass(frozen=True, slots=True)
class User:
    """Who asks: what authentication makes of a token."""

    name: str
    groups: tuple[str, ...] = (AUTHENTICATED,)


def service_account(namespace: str, name: str) -> User:
    """Return the user that a service account is."""
    groups = (_SERVICE_ACCOUNTS, f"{_SERVICE_ACCOUNTS}:{namespace}", AUTHENTICATED)
    return User(f"system:serviceaccount:{namespace}:{name}", groups)


@dataclass(frozen=True, slots=True)
class Attributes:
    """What is asked for. `namespace` is empty at the cluster scope, `name` where no single object is meant."""

    verb: str
    group: str
    resource: str
    subresource: str = ""
    namespace: str = ""
    name: str = ""

    @property
    def combined(self) -> str:
        """The resource with its subresource, as rules name it."""
        return f"{self.resource}/{self.subresource}" if self.subresource else self.resource


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of a role: everything in it is allowed with everything else in it."""

    verbs: tuple[str, ...]
    groups: tuple[str, ...]
    resources: tuple[str, ...]
    names: tuple[str, ...] = ()

    @classmethod
    def of(cls, item: Json) -> Rule:
        """Read a PolicyRule."""
        fields = (item.get(key) or () for key in ("verbs", "apiGroups", "resources", "resourceNames"))
        return cls(*map(tuple, fields))

    def allows(self, asked: Attributes) -> bool:
        """Tell whether this rule allows it."""
        return (
            bool({_ANY, asked.verb} & {*self.verbs})
            and bool({_ANY, asked.group} & {*self.groups})
            and self._has_resource(asked)
            and (not self.names or asked.name in self.names)
        )

    def _has_resource(self, asked: Attributes) -> bool:
        wanted = {_ANY, asked.combined}
        if asked.subresource:
            wanted.add(f"*/{asked.subresource}")
        return bool(wanted & {*self.resources})

    @property
    def json(self) -> Json:
        """The PolicyRule."""
        found = {
            "verbs": list(self.verbs),
            "apiGroups": list(self.groups),
            "resources": list(self.resources),
            "resourceNames": list(self.names),
        }
        return {key: value for key, value in found.items() if value}

    def single(self) -> Iterator[Rule]:
        """Split it into rules with one of each, as far as they can be told apart."""
        for verb, group, resource, name in itertools.product(
            self.verbs, self.groups, self.resources, self.names or ("",)
        ):
            yield Rule((verb,), (group,), (resource,), (name,) if name else ())

    def covers(self, other: Rule) -> bool:
        """Tell whether everything that a single rule allows is allowed by this one."""
        return (
            (_ANY in self.verbs or {*other.verbs} <= {*self.verbs})
            and (_ANY in self.groups or {*other.groups} <= {*self.groups})
            and all(self._covers_resource(resource) for resource in other.resources)
            and (not self.names or (bool(other.names) and {*other.names} <= {*self.names}))
        )

    def _covers_resource(self, resource: str) -> bool:
        subresource = resource.partition("/")[2]
        wanted = {_ANY, resource, *([f"*/{subresource}"] if subresource else [])}
        return bool(wanted & {*self.resources})


@dataclass(frozen=True, slots=True)
class Grant:
    """A rule that a user has, and by which binding."""

    rule: Rule
    because: str


class Authorizer:
    """Answers questions by the roles and bindings there are at that moment.

    Parameters
    ----------
    listing
        Gives all objects of one of the four kinds, by its plural.
    """

    def __init__(self, listing: Callable[[str], Iterable[Json]]) -> None:
        self._listing = listing

    def why(self, user: User, asked: Attributes) -> str | None:
        """Return what allows something, in words; None if nothing does."""
        if MASTERS in user.groups:
            return f"{MASTERS} may do everything"
        for grant in self.grants(user, asked.namespace):
            if grant.rule.allows(asked):
                return grant.because
        return None

    def allows(self, user: User, asked: Attributes) -> bool:
        """Tell whether somebody may do something."""
        return self.why(user, asked) is not None

    def grants(self, user: User, namespace: str) -> Iterator[Grant]:
        """Go through the rules that somebody has in a namespace; with none, at the cluster scope."""
        yield from self._granted(user, self._listing("clusterrolebindings"), "")
        if namespace:
            here = (
                binding
                for binding in self._listing("rolebindings")
                if binding["metadata"].get("namespace") == namespace
            )
            yield from self._granted(user, here, namespace)

    def rules(self, user: User, namespace: str) -> list[Rule]:
        """Return the rules that somebody has in a namespace."""
        if MASTERS in user.groups:
            return [Rule((_ANY,), (_ANY,), (_ANY,))]
        return list(dict.fromkeys(grant.rule for grant in self.grants(user, namespace)))

    def _granted(self, user: User, bindings: Iterable[Json], namespace: str) -> Iterator[Grant]:
        for binding in bindings:
            subject = next((s for s in binding.get("subjects") or () if _is(user, s, namespace)), None)
            if subject is None:
                continue
            role = binding["roleRef"]
            name = binding["metadata"]["name"]
            where = f"RoleBinding {f'{name}/{namespace}'!r}" if namespace else f"ClusterRoleBinding {name!r}"
            to = f"{subject['kind']} {subject['name']!r}"
            because = f"RBAC: allowed by {where} of {role['kind']} {role['name']!r} to {to}"
            because = because.replace("'", '"')
            for rule in self.rules_of(role, namespace):
                yield Grant(rule, because)

    def rules_of(self, role: Json, namespace: str) -> list[Rule]:
        """Return the rules behind a roleRef of a binding in a namespace; none if there is no such role."""
        plural, where = ("roles", namespace) if role["kind"] == "Role" else ("clusterroles", "")
        for found in self._listing(plural):
            metadata = found["metadata"]
            if metadata["name"] == role["name"] and metadata.get("namespace", "") == where:
                return [Rule.of(item) for item in found.get("rules") or ()]
        return []

    def lacking(self, user: User, wanted: Iterable[Rule], namespace: str) -> list[Rule]:
        """Return which of some rules somebody does not have, and so may not give to others."""
        own = self.rules(user, namespace)
        singles = itertools.chain.from_iterable(rule.single() for rule in wanted)
        return [single for single in singles if not any(rule.covers(single) for rule in own)]


def _is(user: User, subject: Json, namespace: str) -> bool:
    match subject.get("kind"):
        case "User":
            return bool(subject.get("name") == user.name)
        case "Group":
            return subject.get("name") in user.groups
        case "ServiceAccount":
            where = subject.get("namespace") or namespace
            return bool(where) and service_account(where, str(subject.get("name"))).name == user.name
    return False


def refusal(user: User, asked: Attributes) -> str:
    """Say that somebody may not do something, as the API server does (apiserver, endpoints/handlers/responsewriters)."""
    where = f'in the namespace "{asked.namespace}"' if asked.namespace else "at the cluster scope"
    return (
        f'User "{user.name}" cannot {asked.verb} resource "{asked.combined}" '
        f'in API group "{asked.group}" {where}'
    )
