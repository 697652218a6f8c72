"""The manager's certificate: made in memory, proven by its key, known by its fingerprint."""

from __future__ import annotations

import hashlib
import json
import os
import ssl
import subprocess
import sys

import pytest
from telehelper.errors import HelperMissing
from telehelper.manager.certificate import Identity, make_identity


def handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> ssl.SSLObject:
    """Shake hands in memory; return the client's end."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    near = client.wrap_bio(to_client, to_server)
    far = server.wrap_bio(to_server, to_client, server_side=True)
    ends = [near, far]
    for _ in range(10):
        for end in list(ends):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            ends.remove(end)
    assert ends == []
    return near


def client_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def test_the_fingerprint_is_that_of_the_certificate_shown() -> None:
    identity = make_identity()
    shown = handshake(identity.context, client_context())
    certificate = shown.getpeercert(binary_form=True)
    assert certificate is not None
    assert identity.fingerprint == hashlib.sha256(certificate).hexdigest()
    assert shown.version() == "TLSv1.3"


def test_each_is_another() -> None:
    assert make_identity().fingerprint != make_identity().fingerprint


def test_a_client_that_pins_it_as_its_authority_accepts_it() -> None:
    # Not what our client does, but it shows that the certificate is sound.
    identity = make_identity()
    certificate = handshake(identity.context, client_context()).getpeercert(binary_form=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=certificate)
    handshake(identity.context, context)


OPENED = """
import json, os, sys
opened = []
def hook(event, arguments):
    if event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        opened.append(str(arguments[0]))
from telehelper.manager import certificate
before = os.listdir("/proc/self/fd")
sys.addaudithook(hook)
certificate.make_identity()
print(json.dumps([opened, len(os.listdir("/proc/self/fd")) - len(before)]))
"""


def test_the_key_touches_no_disk_and_no_descriptor_stays() -> None:
    done = subprocess.run(
        [sys.executable, "-B", "-c", OPENED], capture_output=True, text=True, check=True, cwd="/"
    )
    opened, more = json.loads(done.stdout)
    # The one thing opened for writing is a descriptor, the memory's; a number, not a path.
    assert [name for name in opened if not name.isdigit()] == []
    assert len(opened) == 1
    assert more == 0


def test_without_the_package_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(HelperMissing, match="cryptography") as caught:
        make_identity()
    assert "tcp://" in caught.value.hint
    assert isinstance(Identity(client_context(), ""), Identity)
    assert os.path.exists("/proc/self/fd")
