"""The resolver's actions are values."""

from __future__ import annotations

import typing

from telehelper.core.dns_actions import Action, Admit, Answer, AskCluster, AskUpstream, Drop, Forget


def test_every_action_is_of_the_union() -> None:
    assert set(typing.get_args(Action)) == {AskCluster, AskUpstream, Admit, Forget, Answer, Drop}


def test_questions_go_by_udp_unless_it_is_said() -> None:
    assert AskCluster(1, b"q") == AskCluster(1, b"q", stream=False)
