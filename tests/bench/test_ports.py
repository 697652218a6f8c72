"""What the server tells and the load generator takes."""

from __future__ import annotations

import json

import pytest
from telehelper.errors import UsageError

from telemagic.bench.ports import Ports

GOOD = {"sink": 1, "source": 2, "echo": 3, "udp": 4, "iperf3": 5}


@pytest.mark.parametrize("iperf3", [5, None])
def test_ports_go_there_and_back(iperf3: int | None) -> None:
    ports = Ports(**{**GOOD, "iperf3": iperf3})
    assert Ports.from_json(ports.to_json()) == ports


def test_the_usual_ports_differ_and_are_not_ephemeral() -> None:
    usual = json.loads(Ports().to_json()).values()
    assert len(set(usual)) == len(usual)
    assert all(1024 <= port < 32768 for port in usual)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not JSON"),
        ("[1, 2, 3, 4, 5]", "object of sink"),
        (json.dumps({**GOOD, "more": 6}), "object of sink"),
        (json.dumps({"sink": 1}), "object of sink"),
        (json.dumps({**GOOD, "echo": 0}), "echo is 0"),
        (json.dumps({**GOOD, "echo": 65536}), "echo is 65536"),
        (json.dumps({**GOOD, "echo": "7"}), "echo is '7'"),
        (json.dumps({**GOOD, "echo": True}), "echo is True"),
        (json.dumps({**GOOD, "udp": None}), "udp is None"),
    ],
)
def test_nonsense_is_refused(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        Ports.from_json(text)
    assert caught.value.hint
