"""The DNS codec, with dnspython as the independent oracle."""

from __future__ import annotations

import dns.edns
import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from telehelper.core import dns_message as codec
from telehelper.core.dns_message import MessageError

A_QUERY = bytes.fromhex("123401000001000000000000") + b"\x08PostGres\x04shop\x00\x00\x01\x00\x01"


def response(query: dns.message.Message, *rrsets: str, authority: str = "") -> dns.message.Message:
    made = dns.message.make_response(query)
    made.answer = [dns.rrset.from_text(*text.split(" ", 4)) for text in rrsets]
    if authority:
        made.authority = [dns.rrset.from_text(*authority.split(" ", 4))]
    return made


def test_a_query_keeps_its_spelling_and_is_matched_in_lower_case() -> None:
    query = codec.parse_query(A_QUERY)
    assert query.id == 0x1234
    assert query.question.name == (b"postgres", b"shop")
    assert query.question.asked == (b"PostGres", b"shop")
    assert (query.question.qtype, query.question.qclass) == (codec.A, 1)
    assert query.question.raw == A_QUERY[12:]
    assert query.opt == b""
    assert query.limit == 512


def test_the_opt_record_goes_on_as_it_came() -> None:
    cookie = dns.edns.GenericOption(10, b"12345678")
    wire = dns.message.make_query("a.b", "AAAA", use_edns=0, payload=1232, options=[cookie]).to_wire()
    query = codec.parse_query(wire)
    assert query.limit == 1232
    sent = dns.message.from_wire(codec.encode_query(7, query, (b"a", b"b", b"svc")))
    assert sent.id == 7
    assert sent.question[0].to_text() == "a.b.svc. IN AAAA"
    assert sent.payload == 1232
    assert sent.options == (cookie,)


def test_the_payload_a_client_claims_is_bounded() -> None:
    small = dns.message.make_query("a.b", "A", use_edns=0, payload=100).to_wire()
    large = dns.message.make_query("a.b", "A", use_edns=0, payload=65000).to_wire()
    assert codec.parse_query(small).limit == 512
    assert codec.parse_query(large).limit == 4096


def test_other_additional_records_are_left_out() -> None:
    made = dns.message.make_query("a.b", "A")
    made.additional = [dns.rrset.from_text("x.", 0, "IN", "A", "1.2.3.4")]
    query = codec.parse_query(made.to_wire())
    assert query.opt == b""


@pytest.mark.parametrize(
    ("wire", "words"),
    [
        (b"\0" * 11, "shorter than a header"),
        (A_QUERY[:4] + b"\0\2" + A_QUERY[6:], "2 questions"),
        (A_QUERY[:-5], "cut off"),
        (A_QUERY[:-1], "cut off"),
        (A_QUERY[:20], "cut off"),
        (A_QUERY[:12], "cut off"),
        (A_QUERY[:12] + b"\x40", "label type"),
        (A_QUERY[:12] + b"\xc0", "cut off"),
        (A_QUERY[:12] + b"\xc0\x0c\0\1\0\1", "does not lead back"),
        (A_QUERY[:12] + b"\xc0\x04\0\1\0\1", "points elsewhere"),
        (A_QUERY[:12] + b"\x3f" + b"a" * 63 + (b"\x3f" + b"b" * 63) * 3 + b"\0\0\1\0\1", "too long"),
        (A_QUERY[:10] + b"\0\1" + A_QUERY[12:] + b"\0\0\x29\x04\xd0", "OPT record is cut off"),
        (
            A_QUERY[:10] + b"\0\1" + A_QUERY[12:] + b"\0\0\x29\x04\xd0\0\0\0\0\0\x04ab",
            "OPT record is cut off",
        ),
    ],
)
def test_bytes_that_are_no_query(wire: bytes, words: str) -> None:
    with pytest.raises(MessageError, match=words):
        codec.parse_query(wire)


def test_an_answer_is_read_as_dnspython_wrote_it() -> None:
    query = dns.message.make_query("db.shop", "ANY", use_edns=0)
    made = response(
        query,
        "db.shop. 5 IN CNAME web.shop.",
        "web.shop. 5 IN A 198.18.0.1",
        "web.shop. 5 IN MX 10 mail.shop.",
        "_pg._tcp.shop. 5 IN SRV 0 100 5432 web.shop.",
        "web.shop. 5 IN TXT hello",
        authority="shop. 5 IN SOA ns.shop. root.shop. 1 2 3 4 5",
    )
    read = codec.parse_response(made.to_wire())
    assert read.rcode == codec.NOERROR
    assert [record.owner for record in read.answers[:2]] == [(b"db", b"shop"), (b"web", b"shop")]
    assert read.answers[0].data == ((b"web", b"shop"),)
    assert read.answers[1].data == (bytes([198, 18, 0, 1]),)
    assert read.answers[2].data == (b"\0\x0a", (b"mail", b"shop"))
    assert read.answers[3].data[1] == (b"web", b"shop")
    assert read.authorities[0].data[:2] == ((b"ns", b"shop"), (b"root", b"shop"))
    assert read.additionals[0].rtype == codec.OPT
    again = dns.message.from_wire(codec.encode_response(read, 512))
    assert again.to_text() == dns.message.from_wire(made.to_wire()).to_text()


def test_names_are_compressed_but_not_in_srv() -> None:
    query = dns.message.make_query("db.shop", "CNAME")
    wire = response(query, "db.shop. 5 IN CNAME web.shop.").to_wire()
    assert codec.encode_response(codec.parse_response(wire), 512) == wire
    query = dns.message.make_query("db.shop", "SRV")
    wire = response(query, "db.shop. 5 IN SRV 0 100 5432 web.shop.").to_wire()
    assert b"\x03web\x04shop\x00" in codec.encode_response(codec.parse_response(wire), 512)


def test_pointers_stay_within_14_bits() -> None:
    query = dns.message.make_query("big.shop", "TXT")
    texts = [f"big.shop. 5 IN TXT {'x' * 250}{i:03}" for i in range(70)]
    made = response(query, *texts, "a.other. 5 IN CNAME b.other.", "c.other. 5 IN CNAME b.other.")
    read = codec.parse_response(made.to_wire())
    again = dns.message.from_wire(codec.encode_response(read, 65535))
    assert again.to_text() == dns.message.from_wire(made.to_wire()).to_text()


ANSWER = response(dns.message.make_query("a.b", "A", id=1), "a.b. 5 IN A 198.18.0.1").to_wire()
CNAME = response(dns.message.make_query("a.b", "A", id=1), "a.b. 5 IN CNAME c.b.").to_wire()


@pytest.mark.parametrize(
    ("wire", "words"),
    [
        (ANSWER[:11], "shorter"),
        (ANSWER[:2] + b"\0\0" + ANSWER[4:], "no answer"),
        (ANSWER[:4] + b"\0\0" + ANSWER[6:], "no answer"),
        (ANSWER[:-1], "record is cut off"),
        (ANSWER[:-6], "record is cut off"),
        (CNAME[:-5] + b"\x03" + CNAME[-4:], "do not fill"),
        (CNAME[:-5] + b"\x05" + CNAME[-4:] + b"x", "do not fill"),
    ],
)
def test_bytes_that_are_no_answer(wire: bytes, words: str) -> None:
    with pytest.raises(MessageError, match=words):
        codec.parse_response(wire)


def test_addresses_that_do_not_fit_are_left_out_with_tc() -> None:
    query = dns.message.make_query("db.shop", "A", use_edns=0)
    made = response(
        query,
        *(f"db.shop. 5 IN A 198.18.0.{i}" for i in range(60)),
        authority="shop. 5 IN NS ns.shop.",
    )
    cut = codec.encode_response(codec.parse_response(made.to_wire()), 512)
    read = dns.message.from_wire(cut)
    assert 512 - 16 < len(cut) <= 512
    assert read.flags & dns.flags.TC
    assert len(read.answer[0]) == 29
    assert not read.authority
    assert read.edns == 0


def test_other_answers_that_do_not_fit_have_tc() -> None:
    query = dns.message.make_query("db.shop", "TXT")
    made = response(query, *(f"db.shop. 5 IN TXT {'x' * 200}{i}" for i in range(3)))
    read = dns.message.from_wire(codec.encode_response(codec.parse_response(made.to_wire()), 512))
    assert read.flags & dns.flags.TC


def test_a_whole_answer_without_its_glue_has_no_tc() -> None:
    query = dns.message.make_query("db.shop", "TXT")
    made = response(query, "db.shop. 5 IN TXT hello", authority=f"shop. 5 IN TXT {'x' * 250}")
    made.authority.append(
        dns.rrset.from_text("shop.", 5, "IN", "NS", f"{'y' * 60}.{'z' * 60}.{'y' * 60}.shop.")
    )
    read = dns.message.from_wire(codec.encode_response(codec.parse_response(made.to_wire()), 400))
    assert len(read.answer) == 1
    assert len(read.authority) == 1
    assert not read.flags & dns.flags.TC


def test_failures_carry_the_question_if_there_is_one() -> None:
    read = dns.message.from_wire(codec.encode_failure(A_QUERY, codec.SERVFAIL))
    assert read.rcode() == dns.rcode.SERVFAIL
    assert read.id == 0x1234
    assert read.question[0].name.to_text() == "PostGres.shop."
    assert read.flags & dns.flags.RA
    read = dns.message.from_wire(codec.encode_failure(A_QUERY[:14], codec.FORMERR))
    assert read.rcode() == dns.rcode.FORMERR
    assert not read.question


def test_texts() -> None:
    assert codec.from_text("Svc.Cluster.Local.") == (b"svc", b"cluster", b"local")
    assert (
        codec.to_text((b"post gres", b"a.b", b"\xff\\"))
        == "post gres".replace(" ", "\\032") + ".a\\046b.\\255\\092"
    )
    assert codec.lower((b"A", b"\xc4b")) == (b"a", b"\xc4b")
