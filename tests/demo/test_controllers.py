"""What the controllers make of objects, without a node: pods are what a test says they are."""

from __future__ import annotations

import copy
from ipaddress import IPv4Network
from typing import Any

from telemagic.demo.controllers import Controllers, is_live, template_hash
from telemagic.demo.kinds import KIND
from telemagic.demo.plan import AddressPlan
from telemagic.demo.store import Store
from tests.demo.api_objects import container, deployment, named, service

PLAN = AddressPlan(IPv4Network("198.18.0.0/20"))
Json = dict[str, Any]


class World:
    """A store with its controllers, and somebody who plays kubelet."""

    def __init__(self) -> None:
        self.store = Store()
        self.controllers = Controllers(self.store, PLAN)
        self.put("namespaces", {"metadata": named("shop", uid="ns")})
        self._addresses = iter(range(20, 200))

    def put(self, plural: str, item: Json) -> Json:
        made = {"uid": f"uid-of-{item['metadata']['name']}", "creationTimestamp": "2026-01-01T00:00:00Z"}
        return self.store.put(KIND[plural], {**item, "metadata": {**made, **item["metadata"]}})

    def reconcile(self) -> None:
        self.controllers.reconcile()
        version = self.store.version
        self.controllers.reconcile()
        assert self.store.version == version, "a second round has nothing to do"

    def pods(self) -> list[Json]:
        return [pod for pod in self.store.list(KIND["pods"]) if is_live(pod)]

    def names(self) -> set[str]:
        return {pod["metadata"]["name"] for pod in self.pods()}

    def run(self, *, ready: bool = True) -> None:
        """Play kubelet: all live pods run, and what is to end has ended."""
        for pod in self.store.list(KIND["pods"]):
            if not is_live(pod):
                self.store.delete(KIND["pods"], "shop", pod["metadata"]["name"])
            elif "podIP" not in pod["status"] or ready:
                ip = pod["status"].get("podIP") or f"198.18.0.{next(self._addresses)}"
                conditions = [{"type": "Ready", "status": str(ready)}]
                status = {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "conditions": conditions}
                self.store.put(KIND["pods"], {**pod, "status": status})
        self.reconcile()

    def get(self, plural: str, name: str) -> Json:
        found = self.store.get(KIND[plural], "shop", name)
        assert found is not None
        return found

    def delete(self, plural: str, name: str) -> None:
        """Delete as the API does: of a pod, only the beginning."""
        if plural == "pods":
            going = copy.deepcopy(self.get(plural, name))
            going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:01Z"
            self.store.put(KIND[plural], going)
        else:
            self.store.delete(KIND[plural], "shop", name)
        self.reconcile()


def test_a_deployment_gets_a_replica_set_and_that_gets_pods() -> None:
    world = World()
    world.put("deployments", deployment("web", "shop", replicas=2))
    world.reconcile()
    (replica_set,) = world.store.list(KIND["replicasets"])
    digest = template_hash(deployment("web")["spec"]["template"])
    assert replica_set["metadata"]["name"] == f"web-{digest}"
    assert len(world.pods()) == 2
    for pod in world.pods():
        metadata = pod["metadata"]
        assert metadata["name"].startswith(f"web-{digest}-")
        assert metadata["labels"] == {"app": "web", "pod-template-hash": digest}
        assert metadata["ownerReferences"][0]["uid"] == replica_set["metadata"]["uid"]
        assert (pod["spec"]["nodeName"], pod["status"]["phase"]) == ("demo-node", "Pending")


def test_a_deployment_tells_of_its_pods() -> None:
    world = World()
    world.put("deployments", deployment("web", "shop", replicas=2))
    world.reconcile()
    status = world.get("deployments", "web")["status"]
    assert (status["replicas"], status["readyReplicas"], status["unavailableReplicas"]) == (2, 0, 2)
    assert status["conditions"][0]["status"] == "False"
    world.run()
    status = world.get("deployments", "web")["status"]
    assert (status["updatedReplicas"], status["readyReplicas"], status["availableReplicas"]) == (2, 2, 2)
    assert status["conditions"][0]["status"] == "True"
    assert status["observedGeneration"] == 1


def test_a_pod_that_is_deleted_is_replaced_by_another() -> None:
    world = World()
    world.put("deployments", deployment("web", "shop"))
    world.reconcile()
    world.run()
    (before,) = world.names()
    world.delete("pods", before)
    (after,) = world.names()
    assert after != before
    world.run()
    assert world.names() == {after}


def test_scaling_adds_and_removes_pods_and_prefers_ready_ones() -> None:
    world = World()
    world.put("deployments", deployment("web", "shop"))
    world.reconcile()
    world.run()
    first = world.names()
    world.put("deployments", deployment("web", "shop", replicas=3))
    world.reconcile()
    assert len(world.names()) == 3
    world.put("deployments", deployment("web", "shop", replicas=1))
    world.reconcile()
    assert world.names() == first, "the ready one stays"
    world.put("deployments", deployment("web", "shop", replicas=0))
    world.reconcile()
    assert world.names() == set()


def test_a_new_template_comes_up_before_the_old_one_goes() -> None:
    world = World()
    world.put("deployments", deployment("web", "shop"))
    world.reconcile()
    world.run()
    (old,) = world.names()
    world.put("deployments", deployment("web", "shop", image="telemagic/manager:next"))
    world.reconcile()
    assert old in world.names()
    assert len(world.names()) == 2
    world.run()
    assert old not in world.names()
    assert len(world.names()) == 1
    assert (
        world.get("deployments", "web")["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "2"
    )


def test_what_a_deployment_owned_goes_with_it() -> None:
    world = World()
    world.put("deployments", deployment("web", "shop"))
    world.reconcile()
    world.delete("deployments", "web")
    assert world.store.list(KIND["replicasets"]) == []
    assert world.names() == set()


def test_a_deployment_made_anew_has_nothing_to_do_with_the_old_ones_pods() -> None:
    world = World()
    world.put("deployments", deployment("web", "shop"))
    world.reconcile()
    before = world.names()
    world.store.delete(KIND["deployments"], "shop", "web")
    world.store.put(
        KIND["deployments"],
        {**deployment("web", "shop"), "metadata": named("web", "shop", uid="another")},
    )
    world.reconcile()
    assert len(world.names()) == 1
    assert not world.names() & before


def test_a_pod_of_nobody_is_left_alone() -> None:
    world = World()
    pod = {"metadata": named("bare", "shop"), "spec": {"containers": [container()]}, "status": {}}
    world.put("pods", pod)
    world.reconcile()
    assert world.names() == {"bare"}


def test_a_service_gets_endpoints_that_follow_its_pods() -> None:
    world = World()
    world.put("services", service("web", "shop", ipFamilies=["IPv4"]))
    world.reconcile()
    assert world.get("endpoints", "web")["subsets"] == []
    world.put("deployments", deployment("web", "shop"))
    world.reconcile()
    world.run(ready=False)
    (pod,) = world.pods()
    (subset,) = world.get("endpoints", "web")["subsets"]
    assert [one["ip"] for one in subset["notReadyAddresses"]] == [pod["status"]["podIP"]]
    world.run()
    (subset,) = world.get("endpoints", "web")["subsets"]
    assert [one["targetRef"]["name"] for one in subset["addresses"]] == [pod["metadata"]["name"]]
    (sliced,) = world.store.list(KIND["endpointslices"])
    assert sliced["endpoints"][0]["conditions"]["ready"] is True
    identity = sliced["metadata"]["uid"]
    world.delete("pods", pod["metadata"]["name"])
    world.run()
    (sliced,) = world.store.list(KIND["endpointslices"])
    (successor,) = world.pods()
    assert sliced["endpoints"][0]["addresses"] == [successor["status"]["podIP"]] != [pod["status"]["podIP"]]
    assert sliced["metadata"]["uid"] == identity
    world.delete("services", "web")
    assert world.store.list(KIND["endpoints"]) == world.store.list(KIND["endpointslices"]) == []


def test_a_namespace_gets_an_account_and_takes_everything_with_it() -> None:
    world = World()
    world.reconcile()
    assert world.get("serviceaccounts", "default")["metadata"]["uid"]
    world.put("deployments", deployment("web", "shop"))
    world.put("services", service("web", "shop", ipFamilies=["IPv4"]))
    world.put("configmaps", {"metadata": named("c", "shop")})
    world.reconcile()
    going = copy.deepcopy(world.store.get(KIND["namespaces"], "", "shop"))
    assert going is not None
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:01Z"
    world.store.put(KIND["namespaces"], going)
    world.reconcile()
    assert world.store.get(KIND["namespaces"], "", "shop") is not None, "its pods still run"
    world.run()
    assert world.store.get(KIND["namespaces"], "", "shop") is None
    for kind in KIND.values():
        assert world.store.list(kind) == [], kind.plural


def test_annotations_of_users_that_are_no_numbers_do_no_harm() -> None:
    world = World()
    world.put("deployments", deployment("web", "shop"))
    world.reconcile()
    (replica_set,) = world.store.list(KIND["replicasets"])
    spoilt = copy.deepcopy(replica_set)
    spoilt["metadata"]["annotations"] = {"deployment.kubernetes.io/revision": "x"}
    world.store.put(KIND["replicasets"], spoilt)
    world.put("deployments", deployment("web", "shop", image="telemagic/manager:next"))
    world.reconcile()
    assert len(world.store.list(KIND["replicasets"])) == 2
