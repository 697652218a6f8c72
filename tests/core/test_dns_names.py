"""Addresses of the cluster's answers: which are given on, as what, and what is remembered."""

from __future__ import annotations

from ipaddress import ip_address

from telehelper.core import dns_message as dns
from telehelper.core import dns_names
from telehelper.core.dns_message import Name, Question, Record, Response
from telehelper.core.dns_names import NameMemory, Origin

QUESTION = Question((b"x",), dns.A, 1, b"\x01x\0\0\x01\0\x01")
DOMAIN = dns.from_text("cluster.local")
INSIDE = dns.from_text("x.shop.svc.cluster.local")


def record(address: str, owner: Name = INSIDE) -> Record:
    parsed = ip_address(address)
    return Record(owner, dns.A if parsed.version == 4 else dns.AAAA, 1, 5, (parsed.packed,))


def response(*answers: Record, additionals: tuple[Record, ...] = ()) -> Response:
    return Response(1, 0x8000, QUESTION, answers, (), additionals)


def test_the_address_in_a_record() -> None:
    assert dns_names.address_of(record("198.18.0.1")) == ip_address("198.18.0.1")
    assert dns_names.address_of(record("fd12::1")) == ip_address("fd12::1")
    for rtype, data in ((dns.A, b"four!"), (dns.AAAA, b"four"), (16, b"four"), (dns.A, (b"name",))):
        assert dns_names.address_of(Record(INSIDE, rtype, 1, 5, (data,))) is None


def test_addresses_each_once_in_order_from_answers_and_additionals() -> None:
    made = response(
        record("198.18.0.2"), record("198.18.0.1"), additionals=(record("198.18.0.2"), record("fd12::1"))
    )
    assert [str(a) for a in dns_names.addresses(made)] == ["198.18.0.2", "198.18.0.1", "fd12::1"]
    assert dns_names.has_addresses(made)


def test_addresses_that_no_cluster_has() -> None:
    nowhere = ("127.0.0.53", "169.254.169.254", "0.0.0.0", "224.0.0.251", "255.255.255.255")
    nowhere6 = ("::1", "::", "fe80::1", "ff02::fb", "::ffff:127.0.0.1", "::ffff:198.18.0.1")
    made = response(*map(record, (*nowhere, *nowhere6)))
    assert dns_names.addresses(made) == ()
    assert dns_names.has_addresses(made)
    assert not dns_names.has_addresses(response(Record(INSIDE, 16, 1, 5, (b"text",))))


def test_addresses_are_replaced_or_left_out_and_other_records_stay() -> None:
    text = Record(INSIDE, 16, 1, 5, (b"text",))
    odd = Record(INSIDE, dns.A, 1, 5, (b"odd",))
    made = response(
        record("10.0.0.1"),
        record("10.0.0.2"),
        text,
        odd,
        record("10.0.0.3"),
        additionals=(record("10.0.0.1"),),
    )
    told = {
        ip_address("10.0.0.1"): ip_address("198.19.0.1"),
        ip_address("10.0.0.2"): ip_address("10.0.0.2"),
        ip_address("10.0.0.3"): ip_address("fd12::1"),  # of the other family: not what was asked for
    }
    answer = dns_names.rewritten(made, told)
    assert answer.answers == (record("198.19.0.1"), record("10.0.0.2"), text)
    assert answer.additionals == (record("198.19.0.1"),)


def test_names_of_addresses_and_of_what_was_told_instead() -> None:
    memory = NameMemory()
    theirs, ours, same = ip_address("10.0.0.1"), ip_address("198.19.0.1"), ip_address("10.0.0.2")
    made = response(record("10.0.0.1"), record("10.0.0.2"), record("10.0.0.3"), record("fd12::1"))
    memory.learn(
        "x.shop", made, {theirs: ours, same: same, ip_address("fd12::1"): ip_address("fd12::1")}, DOMAIN
    )
    assert memory.names == {theirs: "x.shop", ours: "x.shop", same: "x.shop"}
    assert (memory.original(ours), memory.original(same), memory.original(theirs)) == (theirs, same, None)


def test_a_strangers_address_is_none_of_the_clusters_unless_it_was_mapped() -> None:
    memory = NameMemory()
    stranger, mapped = ip_address("203.0.113.1"), ip_address("203.0.113.2")
    owner = dns.from_text("db.example.com")
    told = {stranger: stranger, mapped: ip_address("198.19.0.2")}
    memory.learn(
        "db.shop", response(record("203.0.113.1", owner), record("203.0.113.2", owner)), told, DOMAIN
    )
    assert memory.names[stranger] == "db.shop"
    assert memory.original(stranger) is None
    assert memory.original(ip_address("198.19.0.2")) == mapped


def test_memory_is_bounded() -> None:
    memory = NameMemory(limit=2, questions=2)
    for i in range(4):
        address = ip_address(f"198.18.0.{i}")
        memory.learn(f"n{i}", response(record(str(address))), {address: address}, DOMAIN)
        memory.note((b"q%d" % i,), 1, Origin("cluster", INSIDE))
    assert list(memory.names.values()) == ["n2", "n3"]
    assert memory.original(ip_address("198.18.0.0")) is None
    assert list(memory.origins) == [((b"q2",), 1), ((b"q3",), 1)]


def test_reverse_names() -> None:
    assert dns_names.reverse_name(ip_address("198.18.0.9")) == dns.from_text("9.0.18.198.in-addr.arpa")
    assert dns_names.reverse_name(ip_address("fd12::1"))[-3:] == (b"f", b"ip6", b"arpa")
