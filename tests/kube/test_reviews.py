"""What is asked of an API server about one's rights."""

from __future__ import annotations

from telehelper.kube.reviews import REVIEWS, access_review


def test_a_review_names_a_subresource_apart() -> None:
    assert access_review("create", "pods/portforward", "shop") == {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {
            "resourceAttributes": {
                "namespace": "shop",
                "verb": "create",
                "group": "",
                "resource": "pods",
                "subresource": "portforward",
            }
        },
    }


def test_of_the_whole_cluster_and_of_another_group() -> None:
    asked = access_review("list", "servicecidrs", group="networking.k8s.io")["spec"]["resourceAttributes"]
    assert (asked["namespace"], asked["group"]) == ("", "networking.k8s.io")
    assert (asked["resource"], asked["subresource"]) == ("servicecidrs", "")


def test_they_go_where_kubernetes_has_them() -> None:
    assert REVIEWS == "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
