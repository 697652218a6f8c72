"""Changes by users, on a store without a server."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest

from telemagic.demo import rbac
from telemagic.demo.kinds import KIND, Target
from telemagic.demo.rbac import Authorizer, User
from telemagic.demo.refusals import Refused
from telemagic.demo.service_addresses import ServiceAddresses
from telemagic.demo.store import Store
from telemagic.demo.writer import Writer, suffix
from tests.demo.api_objects import binding, container, deployment, named, role, service

ROOT = User("root", (rbac.MASTERS,))
ALICE = User("alice", ("team", rbac.AUTHENTICATED))


class Api:
    """A writer, with namespaces `shop` and `other`."""

    def __init__(self) -> None:
        self.store = Store()
        authorizer = Authorizer(lambda plural: self.store.list(KIND[plural]))
        self.writer = Writer(self.store, authorizer, ServiceAddresses([ip_network("10.96.0.0/20")], (1, 33)))
        for name in ("shop", "other"):
            self.create("namespaces", {"metadata": named(name)})

    def create(self, plural: str, body: Any, namespace: str = "", **options: Any) -> dict[str, Any]:
        target = Target(KIND[plural], namespace)
        return self.writer.create(
            target, body, options.pop("user", ROOT), **{"dry_run": False, **options}
        ).object

    def apply(
        self, plural: str, body: Any, namespace: str = "", name: str = "", **options: Any
    ) -> dict[str, Any]:
        target = Target(KIND[plural], namespace, name or body["metadata"]["name"])
        return self.writer.apply(
            target, body, options.pop("user", ROOT), **{"dry_run": False, **options}
        ).object

    def delete(self, plural: str, name: str, namespace: str = "", **options: Any) -> dict[str, Any]:
        dry_run = options.pop("dry_run", False)
        return self.writer.delete(Target(KIND[plural], namespace, name), options, dry_run=dry_run).object

    def get(self, plural: str, name: str, namespace: str = "") -> dict[str, Any] | None:
        return self.store.get(KIND[plural], namespace, name)


@pytest.fixture
def api() -> Api:
    return Api()


def config(name: str = "c", **data: str) -> dict[str, Any]:
    return {"metadata": named(name), "data": data}


# --- creating ----------------------------------------------------------------------------------------------------


def test_what_is_created_gets_an_identity(api: Api) -> None:
    made = api.create("configmaps", {**config(a="1"), "apiVersion": "v1", "kind": "ConfigMap"}, "shop")
    metadata = made["metadata"]
    assert (metadata["name"], metadata["namespace"], made["kind"]) == ("c", "shop", "ConfigMap")
    assert len(metadata["uid"]) == 36
    assert metadata["resourceVersion"] == str(api.store.version)
    assert metadata["creationTimestamp"].endswith("Z")
    assert api.get("configmaps", "c", "shop") == made


def test_the_users_own_identity_does_not_count(api: Api) -> None:
    body = {"metadata": named("c", uid="mine", creationTimestamp="then", managedFields=[{}], labels=None)}
    metadata = api.create("configmaps", body, "shop")["metadata"]
    assert metadata["uid"] != "mine"
    assert metadata["creationTimestamp"] != "then"
    assert metadata.keys() == {"name", "namespace", "uid", "creationTimestamp", "resourceVersion"}


def test_a_name_may_be_generated(api: Api) -> None:
    names = {
        api.create("configmaps", {"metadata": {"generateName": "c-"}}, "shop")["metadata"]["name"]
        for _ in range(20)
    }
    assert len(names) == 20
    assert all(name.startswith("c-") and len(name) == 7 for name in names)
    assert not set(suffix()) & set("aeiou01")


def test_a_status_is_not_the_users_to_write(api: Api) -> None:
    made = api.create("deployments", {**deployment("web"), "status": {"readyReplicas": 9}}, "shop")
    assert made["status"] == {}
    node = api.create("nodes", {"metadata": named("n"), "status": {"phase": "x"}})
    assert "status" not in node


@pytest.mark.parametrize(
    ("plural", "namespace", "body", "code", "message"),
    [
        ("configmaps", "gone", config(), 404, 'namespaces "gone" not found'),
        ("configmaps", "", config(), 400, "an empty namespace may not be set during creation"),
        ("configmaps", "shop", {**config(), "kind": "Secret"}, 400, "cannot be handled as a ConfigMap"),
        ("configmaps", "shop", {**config(), "apiVersion": "v2"}, 400, "cannot be handled as a ConfigMap"),
        ("configmaps", "shop", {"metadata": named("c", "other")}, 400, "does not match the namespace"),
        ("configmaps", "shop", {"metadata": named("c", resourceVersion="7")}, 400, "resourceVersion should not be set"),
        ("configmaps", "shop", {}, 422, "metadata.name: Required value"),
        ("configmaps", "shop", {"metadata": "x"}, 422, "metadata.name: Required value"),
        ("services", "shop", service("X"), 422, 'Service "X" is invalid: metadata.name'),
    ],
)  # fmt: skip
def test_what_has_no_place_is_refused(
    api: Api, plural: str, namespace: str, body: dict[str, Any], code: int, message: str
) -> None:
    version = api.store.version
    with pytest.raises(Refused) as caught:
        api.create(plural, body, namespace)
    assert caught.value.code == code
    assert message in caught.value.message
    assert api.store.version == version


def test_a_name_that_is_taken_is_refused(api: Api) -> None:
    api.create("deployments", deployment("web"), "shop")
    with pytest.raises(Refused) as caught:
        api.create("deployments", deployment("web"), "shop")
    assert (caught.value.code, caught.value.reason) == (409, "AlreadyExists")
    assert caught.value.message == 'deployments.apps "web" already exists'
    api.create("deployments", deployment("web"), "other")


def test_a_dry_run_changes_nothing_and_refuses_the_same(api: Api) -> None:
    version = api.store.version
    made = api.create("services", service("web"), "shop", dry_run=True)
    assert made["spec"]["clusterIP"] == "10.96.0.0"
    api.apply("configmaps", config(), "shop", dry_run=True)
    with pytest.raises(Refused):
        api.create("configmaps", config(), "gone", dry_run=True)
    assert api.store.version == version


def test_a_service_is_filled_in(api: Api) -> None:
    spec = api.create("services", service("web"), "shop")["spec"]
    assert spec["ports"] == [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 80}]
    assert (spec["type"], spec["sessionAffinity"]) == ("ClusterIP", "None")
    assert spec["clusterIP"].startswith("10.96.0.")


def test_nothing_new_gets_into_a_namespace_that_ends(api: Api) -> None:
    api.delete("namespaces", "other")
    with pytest.raises(Refused, match="is being terminated") as caught:
        api.create("configmaps", config(), "other")
    assert caught.value.code == 403


# --- changing ----------------------------------------------------------------------------------------------------


def test_the_same_apply_changes_nothing_more(api: Api) -> None:
    for plural, body, namespace in (
        ("namespaces", {"metadata": named("new", labels={"a": "b"})}, ""),
        ("deployments", deployment("web"), "shop"),
        ("services", service("web"), "shop"),
        ("roles", role("r"), "shop"),
        ("rolebindings", binding("b", "shop"), "shop"),
    ):
        first = api.apply(plural, body, namespace)
        version = api.store.version
        assert api.apply(plural, body, namespace) == first, plural
        assert api.store.version == version, plural


def test_an_apply_merges_and_counts_generations(api: Api) -> None:
    first = api.apply("deployments", deployment("web"), "shop")
    labelled = {"metadata": named("web", labels={"a": "b"})}
    second = api.apply("deployments", labelled, "shop")
    assert second["spec"] == first["spec"]
    assert (second["metadata"]["labels"], second["metadata"]["generation"]) == ({"a": "b"}, 1)
    third = api.apply("deployments", {**labelled, "spec": {"replicas": 3}}, "shop")
    assert (third["spec"]["replicas"], third["metadata"]["generation"]) == (3, 2)
    assert third["metadata"]["uid"] == first["metadata"]["uid"]
    assert int(third["metadata"]["resourceVersion"]) > int(first["metadata"]["resourceVersion"])


def test_an_apply_of_another_name_is_refused(api: Api) -> None:
    with pytest.raises(Refused, match="does not match the name on the URL"):
        api.apply("configmaps", config("a"), "shop", name="b")
    api.apply("configmaps", config("b"), "shop")
    with pytest.raises(Refused, match="does not match the name on the URL"):
        api.apply("configmaps", config("a"), "shop", name="b")


def test_patches_change_what_is_there(api: Api) -> None:
    target = Target(KIND["configmaps"], "shop", "c")
    with pytest.raises(Refused, match='configmaps "c" not found'):
        api.writer.merge(target, {}, ROOT, dry_run=False)
    api.create("configmaps", config(a="1", b="2"), "shop")
    merged = api.writer.merge(target, {"data": {"a": None, "c": "3"}}, ROOT, dry_run=False)
    assert merged.object["data"] == {"b": "2", "c": "3"}
    strategic = {"data": {"b": None}, "metadata": {"labels": {"x": "y"}}}
    again = api.writer.merge_strategic(target, strategic, ROOT, dry_run=False).object
    assert (again["data"], again["metadata"]["labels"]) == ({"c": "3"}, {"x": "y"})
    assert not merged.created


def test_a_replacement_must_be_made_of_the_present_object(api: Api) -> None:
    first = api.create("configmaps", config(a="1"), "shop")
    target = Target(KIND["configmaps"], "shop", "c")
    second = api.writer.replace(target, {**first, "data": {"a": "2"}}, ROOT, dry_run=False).object
    assert (second["data"], second["metadata"]["uid"]) == ({"a": "2"}, first["metadata"]["uid"])
    with pytest.raises(Refused, match="the object has been modified") as caught:
        api.writer.replace(target, {**first, "data": {"a": "3"}}, ROOT, dry_run=False)
    assert (caught.value.code, caught.value.reason) == (409, "Conflict")


def test_a_services_address_stays(api: Api) -> None:
    before = api.create("services", service("web"), "shop")["spec"]
    after = api.apply("services", service("web", sessionAffinity="ClientIP"), "shop")["spec"]
    assert (after["clusterIP"], after["sessionAffinity"]) == (before["clusterIP"], "ClientIP")
    with pytest.raises(Refused, match="may not change once set"):
        api.apply("services", service("web", clusterIPs=["10.96.0.9"], clusterIP="10.96.0.9"), "shop")


# --- deleting ----------------------------------------------------------------------------------------------------


def test_what_is_deleted_is_gone(api: Api) -> None:
    api.create("configmaps", config(), "shop")
    api.delete("configmaps", "c", "shop", dry_run=True)
    assert api.get("configmaps", "c", "shop") is not None
    api.delete("configmaps", "c", "shop")
    assert api.get("configmaps", "c", "shop") is None
    with pytest.raises(Refused) as caught:
        api.delete("configmaps", "c", "shop")
    assert (caught.value.code, caught.value.message) == (404, 'configmaps "c" not found')


def test_pods_and_namespaces_only_begin_to_end(api: Api) -> None:
    api.create("pods", {"metadata": named("p"), "spec": {"containers": [container()]}}, "shop")
    going = api.delete("pods", "p", "shop")
    assert "deletionTimestamp" in going["metadata"]
    assert api.delete("pods", "p", "shop") == going, "once is enough"
    assert api.get("pods", "p", "shop") is not None
    assert api.delete("namespaces", "shop")["status"]["phase"] == "Terminating"


def test_a_pod_of_the_hosts_network_is_only_shown_and_goes_at_once(api: Api) -> None:
    spec = {"containers": [container("kube-proxy")], "hostNetwork": True}
    api.create("pods", {"metadata": named("p"), "spec": spec}, "shop")
    api.delete("pods", "p", "shop")
    assert api.get("pods", "p", "shop") is None


def test_the_clusters_own_namespaces_stay(api: Api) -> None:
    api.create("namespaces", {"metadata": named("kube-system")})
    with pytest.raises(Refused, match="may not be deleted"):
        api.delete("namespaces", "kube-system")


def test_a_precondition_must_hold(api: Api) -> None:
    made = api.create("configmaps", config(), "shop")
    with pytest.raises(Refused, match="Precondition failed") as caught:
        api.delete("configmaps", "c", "shop", preconditions={"uid": "another"})
    assert caught.value.code == 409
    api.delete("configmaps", "c", "shop", preconditions={"uid": made["metadata"]["uid"]})


def test_orphans_lose_their_owner(api: Api) -> None:
    owner = api.create("deployments", deployment("web"), "shop")
    reference = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "name": "web",
        "uid": owner["metadata"]["uid"],
    }
    body = {"metadata": named("c", ownerReferences=[reference, {**reference, "uid": "other"}])}
    api.create("configmaps", body, "shop")
    api.delete("deployments", "web", "shop", propagationPolicy="Orphan")
    left = api.get("configmaps", "c", "shop")
    assert left is not None
    assert [one["uid"] for one in left["metadata"]["ownerReferences"]] == ["other"]


# --- rights ------------------------------------------------------------------------------------------------------


def grant(api: Api, *rules: dict[str, Any]) -> None:
    """Give alice rights in the shop."""
    api.create("roles", {"metadata": named("own"), "rules": list(rules)}, "shop")
    api.create("rolebindings", binding("own", "shop", to="own"), "shop")


def test_nobody_makes_a_role_with_more_than_they_have(api: Api) -> None:
    grant(api, {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]})
    api.create("roles", role("fine", verbs="get"), "shop", user=ALICE)
    with pytest.raises(Refused) as caught:
        api.create("roles", role("more", verbs="get list"), "shop", user=ALICE)
    assert caught.value.code == 403
    assert caught.value.message == (
        'roles.rbac.authorization.k8s.io "more" is forbidden: user "alice" (groups=["team" "system:authenticated"]) '
        "is attempting to grant RBAC permissions not currently held:\n"
        '{APIGroups:[""], Resources:["pods"], Verbs:["list"]}'
    )
    with pytest.raises(Refused, match="not currently held"):
        api.apply("roles", role("fine", verbs="get delete"), "shop", user=ALICE)


def test_nobody_binds_a_role_with_more_than_they_have(api: Api) -> None:
    grant(api, {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]})
    api.create("clusterroles", role("big", verbs="*"))
    with pytest.raises(Refused, match="not currently held"):
        api.create("rolebindings", binding("b", "shop", kind="ClusterRole", to="big"), "shop", user=ALICE)
    api.create("rolebindings", binding("b", "shop", to="own", user="bob"), "shop", user=ALICE)


@pytest.mark.parametrize(
    ("verb", "resource", "make"),
    [("escalate", "roles", "roles"), ("bind", "clusterroles", "rolebindings")],
)
def test_who_may_escalate_or_bind_may_do_it(api: Api, verb: str, resource: str, make: str) -> None:
    rights = {"apiGroups": ["rbac.authorization.k8s.io"], "resources": [resource], "verbs": [verb]}
    grant(api, rights)
    api.create("clusterroles", role("big", verbs="*"))
    body = role("r", verbs="*") if make == "roles" else binding("b", "shop", kind="ClusterRole", to="big")
    api.create(make, body, "shop", user=ALICE)


def test_a_binding_keeps_its_role(api: Api) -> None:
    api.create("rolebindings", binding("b", "shop"), "shop")
    with pytest.raises(Refused, match="cannot change roleRef"):
        api.apply("rolebindings", binding("b", "shop", to="other"), "shop")
