"""A company's DNS server, for sandboxes: what the machine used before, and must go on using for all other names."""

from __future__ import annotations

import socket
import subprocess
import threading
from typing import Final

import dns.message
import dns.rcode
import dns.rrset

from tests.links import cable

COMPANY: Final = "192.0.2.53"  # RFC 5737
WIKI: Final = "192.0.2.80"


def company_network() -> None:
    """Make the company's network: an interface that leads somewhere, or systemd-resolved asks nobody."""
    cable("company0", "company1")
    subprocess.run(["ip", "address", "add", f"{COMPANY}/24", "dev", "company0"], check=True)


class Company:
    """The DNS server that the machine used before: knows `wiki.corp.example` and `www.example.com`, remembers questions."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((COMPANY, 53))
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            data, client = self._socket.recvfrom(4096)
            query = dns.message.from_wire(data)
            name = query.question[0].name.to_text().lower()
            self.asked.append(name)
            made = dns.message.make_response(query)
            if name not in ("wiki.corp.example.", "www.example.com."):
                made.set_rcode(dns.rcode.NXDOMAIN)
            elif query.question[0].rdtype == 1:
                made.answer = [dns.rrset.from_text(name, 0, "IN", "A", WIKI)]
            self._socket.sendto(made.to_wire(), client)
