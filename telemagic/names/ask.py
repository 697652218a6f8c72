"""Asking our resolver directly, by DNS on its address behind the interface: from any thread, and after a fork too."""

from __future__ import annotations

import secrets
import socket
import time
from contextlib import suppress
from ipaddress import ip_address
from typing import Final, NamedTuple

from telehelper.core import dns_message as dns
from telehelper.core.dns_message import MessageError, Query, Question, Response

DNS_PORT: Final = 53
PATIENCE: Final = 6.0  # seconds in all; our resolver itself gives up after four
RESEND: Final = 2.0  # seconds after which a lost datagram is sent again
_LENGTH: Final = 2  # bytes before each message over TCP
_SIZE: Final = {dns.A: 4, dns.AAAA: 16}  # bytes


class Found(NamedTuple):
    """What came back. ``rcode`` is the worse of the answers', NOERROR if one of them has addresses."""

    addresses: tuple[str, ...]
    rcode: int


def ask(server: str, device: str, name: str, types: tuple[int, ...]) -> Found:
    """Ask for a name's records of these types (A, AAAA), all at once.

    Parameters
    ----------
    server, device
        Our resolver's address, and the interface that it is behind: a question never leaves by another one.

    Raises
    ------
    OSError
        ENODEV when the interface is gone: we are not connected any more. Any other: nobody answers.
    ValueError
        It is no name.
    """
    labels = dns.from_text(name)
    if not labels or any(len(label) > 63 for label in labels) or dns.wire_length(labels) > dns.MAX_NAME:
        raise ValueError(f"{name!r:.60} is no name")
    queries = {
        (ident := secrets.randbits(16)): Query(ident, dns.RD, Question(labels, rtype, 1, b""), b"")
        for rtype in types
    }
    answers = _by_udp(server, device, queries)
    addresses = [_addresses(answers[ident], query) for ident, query in queries.items()]
    rcodes = [answer.rcode for answer in answers.values()]
    found = tuple(address for some in addresses for address in some)
    return Found(found, dns.NOERROR if found else max(rcodes))


def _addresses(response: Response, query: Query) -> list[str]:
    wanted = query.question.qtype
    found = [bytes(r.data[0]) for r in response.answers if r.rtype == wanted and isinstance(r.data[0], bytes)]
    return [str(ip_address(data)) for data in found if len(data) == _SIZE[wanted]]


def _open(kind: int, server: str, device: str, patience: float) -> socket.socket:
    made = socket.socket(socket.AF_INET, kind)
    try:
        with suppress(PermissionError):  # Linux before 5.7 lets only root
            made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
        made.settimeout(patience)
        made.connect((server, DNS_PORT))
    except BaseException:
        made.close()
        raise
    return made


def _by_udp(server: str, device: str, queries: dict[int, Query]) -> dict[int, Response]:
    end = time.monotonic() + PATIENCE
    answers: dict[int, Response] = {}
    wires = {ident: dns.encode_query(ident, query, query.question.name) for ident, query in queries.items()}
    with _open(socket.SOCK_DGRAM, server, device, RESEND) as sock:
        while len(answers) < len(queries):
            for ident, wire in wires.items():
                if ident not in answers:
                    sock.send(wire)
            try:
                while len(answers) < len(queries):
                    _take(sock.recv(dns.MAX_PAYLOAD), queries, answers)
            except TimeoutError:
                if time.monotonic() > end:
                    raise
    for ident, answer in answers.items():
        if answer.flags & dns.TC:
            answers[ident] = _by_tcp(server, device, wires[ident], queries) or answer
    return answers


def _take(data: bytes, queries: dict[int, Query], answers: dict[int, Response]) -> None:
    try:
        answer = dns.parse_response(data)
    except MessageError:
        return
    asked = queries.get(answer.id)
    if asked is not None and answer.question[:3] == asked.question[:3]:
        answers[answer.id] = answer


def _by_tcp(server: str, device: str, wire: bytes, queries: dict[int, Query]) -> Response | None:
    """Ask again over TCP for an answer that was too long; None if that fails: a part is better than nothing."""
    answers: dict[int, Response] = {}
    try:
        with _open(socket.SOCK_STREAM, server, device, RESEND) as sock, sock.makefile("rb") as stream:
            sock.sendall(len(wire).to_bytes(_LENGTH, "big") + wire)
            _take(stream.read(int.from_bytes(stream.read(_LENGTH), "big")), queries, answers)
    except OSError:
        return None
    return next(iter(answers.values()), None)
