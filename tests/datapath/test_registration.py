"""A registration has all that the manager said, and shows its token to nobody."""

from __future__ import annotations

from dataclasses import asdict

from telehelper.datapath.registration import Registration
from telehelper.rpc.manager_pb2 import Session


def test_it_has_every_field_of_the_message() -> None:
    session = Session(
        id="7",
        token="SECRET",
        manager_version="1",
        carrier_port=2,
        expiry_seconds=3.0,
        carrier_fingerprint="f",
    )
    assert asdict(Registration.of(session)) == {
        field.name: getattr(session, field.name) for field in Session.DESCRIPTOR.fields
    }
    assert "SECRET" in repr(session), "which is why there is a registration"
    assert "SECRET" not in repr(Registration.of(session))


def test_before_there_is_one_everything_is_empty() -> None:
    assert Registration.of(Session()) == Registration()
