from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser

import pytest
from telehelper.errors import CidrConflict, TelemagicError
from telehelper.messages import CidrRow, PhaseChanged

from telemagic import cards, failures, farewell
from telemagic.control_fake import STATUS
from telemagic.progress import Progress
from telemagic.results import Status

TONES = {"bad": "rotate(45deg)", "idle": "background: none", "busy": "animation"}
EVIL = "</style><script>alert('x')</script><img src=x onerror=\"y\">&\x1b[2J\n"


class Tags(HTMLParser):
    """Collects element and attribute names, and the text outside the style sheet."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


def progress(*changes: PhaseChanged) -> Progress:
    now = Progress("demo", "shop")
    for change in changes:
        now.update(change)
    return now


def hostile() -> list[cards.Card]:
    now = Progress(EVIL, EVIL)
    now.update(PhaseChanged(EVIL, "started", EVIL, 0.0))
    now.update(PhaseChanged("TUN", EVIL, EVIL, 0.0))
    now.note = EVIL
    status = replace(
        STATUS,
        **dict.fromkeys(("state", "context", "namespace", "server", "via", "manager", "device", "dns"), EVIL),
        cidrs=(CidrRow(EVIL, EVIL, EVIL, EVIL),),
        notices=(EVIL,),
        last_error=EVIL,
    )
    return [
        cards.progress(now),
        cards.progress(now, failed=True),
        cards.connected(status, 1.0, [EVIL]),
        cards.status(status, [EVIL]),
        cards.over(status, 1.0, EVIL),
        cards.farewell(EVIL, EVIL, EVIL),
        failures.card(TelemagicError(EVIL, hint=EVIL)),
        farewell.card(farewell.Summary(status, 1.0)),
        farewell.card(
            farewell.Summary(
                replace(status, context=f"prod {EVIL}"),
                1.0,
                (farewell.Talk(EVIL, 1, 1),),
                (farewell.Cell(1, EVIL, 1, 1),),
                ((EVIL, 2),),
            )
        ),
    ]


@pytest.mark.parametrize("card", hostile())
def test_hostile_names_stay_text(card: cards.Card) -> None:
    tags = Tags(card.html)
    assert not tags.names & {"script", "img"}
    assert not tags.attributes & {"onerror", "src"}
    assert "<script>alert('x')</script>" in tags.text
    assert card.html.count("</style>") == 1
    assert "\x1b" not in card.text


def test_no_address_to_load_from() -> None:
    html = cards.status(STATUS).html
    assert "url(" not in html
    assert "http" not in html.replace("https://127.0.0.1:6443", "")


def test_steps_as_they_happen() -> None:
    now = progress(
        PhaseChanged("elevate", "done", "sudo", 1.25),
        PhaseChanged("TUN", "started", "", 0.0),
    )
    card = cards.progress(now)
    assert card.text.splitlines() == [
        "Connecting to demo",
        "  Ask for root    done       1.25 s  sudo",
        "  Network device  started",
    ]
    tags = Tags(card.html)
    assert [s.state for s in now.steps.values()] == ["done", "started", *["pending"] * 5]
    assert "1.25 s" in tags.text


def test_failed_at_the_running_step() -> None:
    now = progress(PhaseChanged("elevate", "done", "", 0.1), PhaseChanged("TUN", "started", "", 0.0))
    now.fail("no device")
    assert now.steps["TUN"].state == "failed"
    now.fail("again")  # only once
    assert now.steps["TUN"].detail == "no device"
    text = cards.progress(now, failed=True).text
    assert text.splitlines()[-1] == "  Network device  failed     0.00 s  no device"


def test_failed_between_steps_and_new_phases() -> None:
    now = progress(PhaseChanged("elevate", "done", "", 0.1), PhaseChanged("warm-up", "done", "", 0.1))
    assert list(now.steps)[:3] == ["elevate", "warm-up", "TUN"]
    now.fail("gone")
    assert now.steps["TUN"].state == "failed"
    nothing_left = Progress("a", steps={})
    nothing_left.fail("gone")
    assert nothing_left.steps == {}


def test_the_card_of_a_connect_tells_of_a_moment() -> None:
    """Nobody can change it when the kernel was restarted, so it must not say how things are."""
    card = cards.connected(STATUS, 0.52)
    moment = cards.clock(STATUS.connected_at)
    assert card.text.splitlines()[0] == f"Connected at {moment} to demo, namespace shop (in 0.52 s)"
    assert f"<span>Connected at {moment} to</span><b>demo</b>" in card.html
    assert cards.connected(STATUS).text.splitlines()[0].endswith("to demo, namespace shop")


def test_status_says_how_cidrs_were_found() -> None:
    text = cards.status(STATUS, ["shared"]).text
    assert "198.18.16.0/20     pods      spec.podCIDR of 2 nodes (certain)" in text
    assert "round trip 1.40 ms" in text
    assert text.endswith("note: shared")
    assert "round trip" not in cards.status(replace(STATUS, rtt=-1.0, cidrs=())).text


def test_a_status_is_of_a_moment_and_says_which() -> None:
    now = STATUS.connected_at + 200
    card = cards.status(STATUS, at=now)
    assert f"(at {cards.clock(now)})" in card.text.splitlines()[0]
    assert "connected 3 min" in card.text
    figures = Tags(card.html).text
    assert "1.40 ms" in figures
    assert "flows open" in figures
    assert Status(STATUS).to_dict() == Status(STATUS).to_dict()


def test_a_connection_that_is_over_keeps_its_facts_and_says_so() -> None:
    card = cards.over(STATUS, STATUS.connected_at + 60)
    first, *others = card.text.splitlines()
    begin, end = cards.clock(STATUS.connected_at), cards.clock(STATUS.connected_at + 60)
    assert first == f"Disconnected from demo, namespace shop ({begin} to {end})"
    assert "Connected" not in card.html
    assert any("198.18.16.0/20" in line for line in others)
    lost = cards.over(STATUS, STATUS.connected_at, "the helper (pid 7) has ended").text
    assert lost.startswith("Connection lost to demo")
    assert lost.endswith("note: the helper (pid 7) has ended")


def test_production_is_said_aloud_on_every_card() -> None:
    prod = replace(STATUS, context="gke-PROD-eu")
    now = Progress("gke-PROD-eu")
    for card in (
        cards.connected(prod),
        cards.over(prod, 1.0),
        cards.status(prod),
        cards.progress(now),
        farewell.card(farewell.Summary(prod, 1.0)),
    ):
        assert card.text.startswith("!! PRODUCTION !! gke-PROD-eu matches *prod*\n")
        assert card.html.count('class="tm-banner"') == 1
    assert 'tm-banner"' not in cards.status(STATUS).html


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1.0, ""), (0.0, "0.00 ms"), (0.00314, "3.14 ms"), (0.0412, "41.2 ms"), (1.5, "1500 ms")],
)
def test_milliseconds(seconds: float, text: str) -> None:
    assert cards.milliseconds(seconds) == text


def test_each_tone_has_a_mark_of_its_own_shape() -> None:
    """Who sees no colours tells them by it: a diamond is bad, a ring is over, a disc is fine, one that breathes is busy."""
    rules = {
        tone: [line for line in cards.STYLE.splitlines() if f" .tm-{tone} .tm-dot {{" in line]
        for tone in TONES
    }
    assert all(any(shape in rule for rule in rules[tone]) for tone, shape in TONES.items()), rules


def test_of_many_cidrs_the_surest_are_shown() -> None:
    guesses = [CidrRow(f"10.{n}.0.0/24", "pods", "round visible pods", "guess") for n in range(70)]
    sure = CidrRow("10.96.0.0/12", "services", "ServiceCIDR kubernetes; also: " + "x" * 80, "certain")
    card = cards.status(replace(STATUS, cidrs=(*guesses, sure)))
    lines = [line for line in card.text.splitlines() if "10." in line and "/" in line]
    assert len(lines) == cards.SHOWN_CIDRS - 1
    assert lines[0].endswith("x… (certain)")
    for text in (card.text, card.html):
        assert "56 more: %tele routes" in text
    assert "more:" not in cards.status(replace(STATUS, cidrs=tuple(guesses[: cards.SHOWN_CIDRS]))).text


@pytest.mark.parametrize(
    ("carrier", "shown"),
    [
        ("portforward", "2 · by port-forward"),
        ("tls://10.0.0.5:8083", "2 · tls://10.0.0.5:8083"),
        ("tcp://10.0.0.5:8084", "2 · tcp://10.0.0.5:8084 · not encrypted"),
    ],
)
def test_status_says_how_data_travels(carrier: str, shown: str) -> None:
    card = cards.status(replace(STATUS, carrier=carrier))
    assert f"Carriers     {shown}" in card.text
    assert shown in card.html


def test_both_addresses_of_the_device_are_shown() -> None:
    dual = replace(STATUS, address_v6="2001:2:0:ffff::7")
    for card in (cards.connected(dual), cards.status(dual)):
        assert f"{STATUS.address} · 2001:2:0:ffff::7" in card.text
    assert "2001:2" not in cards.connected(STATUS).text


def test_status_is_like_a_dict() -> None:
    status = Status(STATUS)
    assert dict(status) == status.to_dict()
    assert status["device"] == status.device == "tele0"
    assert status.to_dict()["cidrs"][0]["confidence"] == "certain"
    assert len(status) == len(status.keys())
    assert "device" in dir(status)
    assert set(status._repr_mimebundle_()) == {"text/plain", "text/html"}
    with pytest.raises(AttributeError):
        status.nonsense  # noqa: B018


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (1_430_000, "1.4 MB"),
        (10**10, "10.0 GB"),
        (10**13, "10.0 TB"),
    ],
)
def test_size(count: int, text: str) -> None:
    assert cards.size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0 s"), (119.4, "119 s"), (120, "2 min"), (3599, "59 min"), (12_000, "3 h 20 min")],
)
def test_duration(seconds: float, text: str) -> None:
    assert cards.duration(seconds) == text


def test_errors_are_two_lines() -> None:
    error = CidrConflict.of("10.0.0.0/8", "10.1.0.0/16", "wg0")
    assert len(error._render_traceback_()) == 2
