"""The control vocabulary: plain data, and errors that cross as what they are."""

from __future__ import annotations

import dataclasses
import typing

import pytest
from telehelper import messages, observing, views
from telehelper.errors import CidrConflict, HelperError
from telehelper.messages import Failed, Message

# By name: the class that @dataclass(slots=True) replaced may still be among the subclasses; the later one counts.
CLASSES = list({cls.__name__: cls for cls in Message.__subclasses__()}.values())


def test_an_error_crosses_as_its_own_type() -> None:
    error = CidrConflict.of("10.0.0.0/8", "10.1.0.0/16", "docker0")
    again = Failed.of(error).to_error()
    assert isinstance(again, CidrConflict)
    assert (str(again), again.hint, again.data) == (str(error), error.hint, error.data)


def test_an_error_of_a_newer_side_is_still_one() -> None:
    assert not isinstance(Failed("of-tomorrow", "it rains").to_error(), HelperError)
    assert str(Failed("of-tomorrow", "it rains").to_error()) == "it rains"


@pytest.mark.parametrize("cls", CLASSES)
def test_a_message_is_frozen_data_of_types_that_the_codec_knows(cls: type[Message]) -> None:
    assert cls in [getattr(home, cls.__name__, None) for home in (messages, observing, views)]
    assert cls.__dataclass_params__.frozen
    for hint in typing.get_type_hints(cls).values():
        item = (
            typing.get_args(hint)[-2 if typing.get_origin(hint) is tuple else -1]
            if typing.get_origin(hint)
            else hint
        )
        assert item in (int, float, bool, str) or issubclass(item, Message), hint
    assert cls.__doc__
    assert dataclasses.is_dataclass(cls)
