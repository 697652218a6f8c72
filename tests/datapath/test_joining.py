from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from telehelper.datapath.joining import LINGER, Lingering, is_certain, join
from telehelper.discovery.claims import FoundCidr, Notice
from telehelper.discovery.discovery import Discovered
from telehelper.rpc.manager_pb2 import Cidr, ClusterInfo

Row = tuple[str, str, str]  # CIDR, kind, confidence


def cidr(text: str, kind: str, confidence: str, source: str = "manager") -> Cidr:
    return Cidr(cidr=text, kind=kind, source=source, confidence=confidence)


def told(*rows: Row, **more: object) -> ClusterInfo:
    return ClusterInfo(cidrs=[cidr(*row) for row in rows], **more)  # type: ignore[arg-type]


def own(*rows: Row, **more: object) -> Discovered:
    return Discovered(tuple(FoundCidr(text, kind, "own", sure) for text, kind, sure in rows), **more)  # type: ignore[arg-type]


def joined(one: ClusterInfo, other: Discovered | None) -> list[tuple[str, str, str, str]]:
    return [(row.cidr, row.kind, row.confidence, row.source) for row in join(one, other).cidrs]


SURE = (("10.96.0.0/12", "services", "certain"), ("10.244.0.0/16", "pods", "certain"))


def test_nobody_is_joined_with_nobody() -> None:
    info = told(*SURE, notices=["x"])
    assert join(info, None) == info


def test_certainty_needs_both_kinds() -> None:
    assert is_certain(told(*SURE))
    assert not is_certain(told(SURE[0]))
    assert not is_certain(told(*SURE, ("fd00::/64", "pods", "guess")))
    assert not is_certain(told(*SURE, ("fd00::/64", "pods", "nonsense")))
    assert not is_certain(told())


def test_who_is_surer_is_believed_each_family_for_itself() -> None:
    manager = told(
        ("10.96.0.0/24", "services", "guess"),
        ("fd00:96::/112", "services", "certain"),
        ("10.244.0.0/16", "pods", "certain"),
    )
    user = own(
        ("10.96.0.0/12", "services", "certain"),
        ("fd00:96::/64", "services", "guess"),
        ("10.244.1.0/24", "pods", "likely"),
        ("fd00:244::/64", "pods", "guess"),
    )
    assert joined(manager, user) == [
        ("10.96.0.0/12", "services", "certain", "own"),
        ("fd00:96::/112", "services", "certain", "manager"),
        ("10.244.0.0/16", "pods", "certain", "manager"),
        ("fd00:244::/64", "pods", "guess", "own"),
    ]


def test_of_two_guesses_both_are_taken_and_nothing_twice() -> None:
    manager = told(("10.1.0.0/23", "pods", "guess"))
    user = own(("10.1.1.0/24", "pods", "guess"), ("10.7.0.0/24", "pods", "guess"))
    assert joined(manager, user) == [
        ("10.1.0.0/23", "pods", "guess", "manager"),
        ("10.7.0.0/24", "pods", "guess", "own"),
    ]


def test_rows_of_another_kind_stay() -> None:
    assert joined(told(("10.9.0.0/16", "user", "certain")), own(*SURE))[-1] == (
        "10.9.0.0/16",
        "user",
        "certain",
        "manager",
    )


def test_the_managers_names_count_first() -> None:
    manager = told(dns_server="10.96.0.10", cluster_domain="corp.example", namespaces=["telemagic"])
    user = own(dns_server="10.0.0.10", cluster_domain="cluster.local", namespaces=("shop",))
    info = join(manager, user)
    assert (info.dns_server, info.cluster_domain, list(info.namespaces)) == (
        "10.96.0.10",
        "corp.example",
        ["shop", "telemagic"],
    )
    alone = join(told(), user)
    assert (alone.dns_server, alone.cluster_domain) == ("10.0.0.10", "cluster.local")


LACKS = tuple(Notice(topic, f"own about {topic}") for topic in ("pods", "services", "dns", "namespaces"))


def test_a_lack_that_the_other_makes_good_is_not_told() -> None:
    manager = told(SURE[1], dns_server="10.96.0.10", namespaces=["a", "b"], notices=["manager's"])
    assert list(join(manager, own(SURE[0], namespaces=("a",), lacks=LACKS)).notices) == ["own about services"]
    poor = own(lacks=LACKS, namespaces=("a", "b", "c"))
    assert list(join(manager, poor).notices) == ["manager's", "own about services", "own about namespaces"]
    assert list(join(told(notices=["manager's"]), own(*SURE, namespaces=("a",), lacks=LACKS)).notices) == [
        "own about pods",
        "own about services",
        "own about dns",
        "own about namespaces",
    ]


@pytest.mark.parametrize("text", ["nonsense", "", "10.0.0.0/99"])
def test_what_is_no_network_is_nobodys_best(text: str) -> None:
    assert joined(told((text, "pods", "certain")), own(SURE[1])) == [(*SURE[1], "own")]


# --- lingering ---------------------------------------------------------------------------------------------------

A = cidr("10.1.0.0/24", "pods", "guess")
B = cidr("10.2.0.0/24", "pods", "guess")


def test_what_is_withdrawn_stays_for_a_while() -> None:
    lingering = Lingering()
    assert lingering.update([A, B], 0.0) == [A, B]
    assert lingering.next_timer() is None
    assert lingering.update([B], 10.0) == [B, A]
    assert lingering.next_timer() == 10.0 + LINGER
    assert lingering.update([B], 10.0 + LINGER - 1) == [B, A]
    assert lingering.update([B], 10.0 + LINGER) == [B]
    assert lingering.next_timer() is None


def test_what_comes_back_was_never_gone() -> None:
    lingering = Lingering()
    for now in (0.0, 1000.0, 2000.0):
        assert lingering.update([A], now) == [A]
        assert lingering.update([], now + 1) == [A]


def test_what_a_wider_one_replaces_goes_at_once() -> None:
    lingering = Lingering()
    lingering.update([A, B], 0.0)
    wide = cidr("10.0.0.0/14", "pods", "certain")
    assert lingering.update([wide], 1.0) == [wide]
    other_kind = cidr("10.0.0.0/14", "services", "certain")
    lingering.update([A], 2.0)
    assert A in lingering.update([other_kind], 3.0)


def test_a_guess_that_shrinks_is_shown_as_it_was() -> None:
    lingering = Lingering()
    pair = cidr("10.1.0.0/23", "pods", "guess")
    lingering.update([pair], 0.0)
    assert lingering.update([A], 1.0) == [pair]
    assert lingering.update([A], 1.0 + LINGER) == [A]


def test_words_that_are_no_networks_do_not_linger() -> None:
    lingering = Lingering()
    odd = cidr("nonsense", "pods", "certain")
    assert lingering.update([odd], 0.0) == [odd]
    assert lingering.update([A], 1.0) == [A]


def test_what_neighbours_have_together_goes_at_once() -> None:
    lingering = Lingering()
    pair = cidr("10.1.0.0/23", "pods", "guess")
    lingering.update([pair], 0.0)
    halves = [A, cidr("10.1.1.0/24", "pods", "guess")]
    assert lingering.update(halves, 1.0) == halves


def test_thousands_of_networks_hold_nobody_up() -> None:
    """A strange manager's word must not stop everyone's connections for seconds: each row was held against each."""
    before, after = (
        [cidr(f"10.{base + n // 256}.{n % 256}.0/32", "pods", "guess") for n in range(4000)]
        for base in (0, 100)
    )
    lingering = Lingering()
    started = time.process_time()
    for rows in (before, after):
        said = join(ClusterInfo(cidrs=rows), own(("10.250.0.0/24", "pods", "guess")))
        shown = lingering.update(said.cidrs, 0.0)
    assert len(shown) == 8001
    assert time.process_time() - started < 5.0  # 0.2 is usual; it took 10, and 25 on a busy machine


@settings(deadline=None)
@given(st.lists(st.sets(st.integers(0, 7)), min_size=1, max_size=12))
def test_all_that_was_said_lately_is_routed_and_nothing_else(words: list[set[int]]) -> None:
    lingering = Lingering(seconds=3.0)
    for now, word in enumerate(words):
        rows = lingering.update([cidr(f"10.{n}.0.0/24", "pods", "guess") for n in word], float(now))
        lately = set().union(*words[max(0, now - 3) : now + 1])
        shown = [row.cidr for row in rows]
        assert len(shown) == len(set(shown))
        assert {f"10.{n}.0.0/24" for n in word} <= set(shown) <= {f"10.{n}.0.0/24" for n in lately}
