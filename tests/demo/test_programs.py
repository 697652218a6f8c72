"""Which images the node has, and what they run."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest
from telehelper.errors import HelperMissing

from telemagic.demo import programs
from tests.demo.api_objects import container, named

ADDRESSES = (IPv4Address("198.18.0.20"), IPv4Address("198.18.8.10"))
PLACE = programs.Place(Path("/disk"), ADDRESSES, Path("/zone.json"), (IPv4Network("198.18.0.0/20"),))


def argv(*words: str, **parts: Any) -> tuple[str, ...]:
    found = programs.find(container(*words, **parts), PLACE)
    assert found is not None
    return found.command.argv


@pytest.mark.parametrize(
    "image",
    [
        "telemagic/manager:dev",
        "telemagic/manager:0.2.0",
        "telemagic/manager",
        "registry.example.com:5000/team/telemagic/manager@sha256:00",
    ],
)
def test_the_managers_image_runs_the_manager(image: str) -> None:
    assert argv(image, args=["--grpc-port", "8081"])[3:] == (
        "telehelper.manager",
        *("--grpc-port", "8081"),
        *("--resolv-conf", "/disk/resolv.conf", "--service-account", "/disk/account"),
    )


@pytest.mark.parametrize(
    ("command", "args"),
    [
        (["python", "-P", "-m", "telehelper.manager"], ["--grpc-port", "1"]),
        (["python"], ["-m", "telehelper.manager", "--grpc-port", "1"]),
        (None, ["telehelper.manager", "--grpc-port", "1"]),
    ],
)
def test_the_managers_command_runs_the_manager_whatever_the_image(
    command: list[str] | None, args: list[str]
) -> None:
    assert argv("python:3.12", command=command, args=args)[3:6] == ("telehelper.manager", "--grpc-port", "1")


@pytest.mark.parametrize(
    "image",
    ["busybox", "postgres:9", "manager:dev", "telemagic/manager-tools:1", "nottelemagic/manager:1", ""],
)
def test_other_images_are_not_there(image: str) -> None:
    assert programs.find(container(image, command=["sleep", "9"]), PLACE) is None


def test_a_registry_that_never_is_has_no_image_not_even_of_the_manager() -> None:
    wanted = container("registry.invalid/telemagic/manager:1", command=["python", "-m", "telehelper.manager"])
    assert programs.find(wanted, PLACE) is None
    assert programs.find({**wanted, "image": "registry.invalid:5000/x"}, PLACE) is None


def test_the_name_server_listens_on_all_of_its_addresses() -> None:
    found = argv(programs.NAMESERVER_IMAGE)
    assert [word for word in found if word.startswith("--address=")] == [
        "--address=127.0.0.1",
        "--address=198.18.0.20",
        "--address=198.18.8.10",
    ]
    assert found[-1] == "/zone.json"


def test_postgres_is_prepared_on_its_own_disk_as_somebody_else() -> None:
    found = programs.find(container(programs.POSTGRES_IMAGE), PLACE)
    assert found is not None
    for command in (*found.prepare, found.command):
        assert command.uid == programs.POSTGRES_UID
        assert any("/disk/postgres" in word for word in command.argv)
    assert "198.18.0.0/20" in found.prepare[1].stdin


def test_without_postgres_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(HelperMissing) as caught:
        programs.find(container(programs.POSTGRES_IMAGE), PLACE)
    assert "pip install" in caught.value.hint


def test_a_command_enters_its_pod_first() -> None:
    command = programs.Command(("true",), uid=1000)
    assert command.entered(7)[4:] == ("--network", "7", "--uid", "1000", "true")
    assert programs.Command(("true",)).entered(None)[4:] == ("true",)


def test_variables_have_values_or_name_fields_of_the_pod() -> None:
    def field(path: str) -> dict[str, Any]:
        return {"valueFrom": {"fieldRef": {"fieldPath": path}}}

    env = [
        {"name": "A", "value": "1"},
        {"name": "NAME", **field("metadata.name")},
        {"name": "IP", **field("status.podIP")},
        {"name": "UNKNOWN", **field("spec.nothing")},
        {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "x"}}},
        {"name": "EMPTY"},
    ]
    pod = {"metadata": named("one", "shop"), "spec": {}}
    assert programs.environment(container(env=env), pod, ADDRESSES) == {
        "A": "1", "NAME": "one", "IP": "198.18.0.20", "UNKNOWN": "", "SECRET": "", "EMPTY": "",
    }  # fmt: skip
    assert programs.environment(container(), pod, ()) == {}
