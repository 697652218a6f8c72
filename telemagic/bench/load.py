"""The near end of `telemagic bench`: `python -m telemagic.bench.load --host HOST --ports JSON --metrics bulk_up_1,rr`.

Prints a line ``{"done": "rr"}`` per measurement and at the end one line ``{"results": {metric: value or null},
"notes": [...], "sender": "iperf3" or "own"}``; what could not be measured is null, and a note says why. With ``--hold N``
it opens N connections instead, prints ``holding N``, and keeps them until the end of its standard input.

*What is what.* ``rr``: 64 bytes there and back on one connection. ``connect``: connecting until the first byte came back.
``rr_under_bulk``: rr while a download saturates the path; beside an upload it is in a note. ``connects_per_s``: opened,
one byte back, closed; 64 under way. ``udp``: the highest rate of 200-byte datagrams, one way up, that loses at most 1 %.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
from typing import TYPE_CHECKING, Final

from telehelper.errors import UsageError

from telemagic.bench import bulk, connects, iperf3, latency, timewait, udp_rate
from telemagic.bench.dial import FarEnd, raise_descriptor_limit, why
from telemagic.bench.ports import Ports

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Values = dict[str, float | None]

PROG: Final = "python -m telemagic.bench.load"
# What is measured together → the metrics it gives.
GROUPS: Final[dict[str, tuple[str, ...]]] = {
    "bulk_up_1": ("bulk_up_1",),
    "bulk_down_1": ("bulk_down_1",),
    "bulk_up_4": ("bulk_up_4",),
    "bulk_down_4": ("bulk_down_4",),
    "rr": ("rr_p50", "rr_p99"),
    "connect": ("connect_p50", "connect_p99"),
    "rr_under_bulk": ("rr_p50_under_bulk", "rr_p99_under_bulk"),
    "connects_per_s": ("connects_per_s",),
    "udp": ("udp_pps", "udp_loss"),
}
LONGEST: Final = 60.0  # seconds of one measurement
MOST_HELD: Final = 20_000  # connections; one address has 28,000 ephemeral ports
_BUSY: Final = 0.9  # of a core: then the generator is the limit
_MANY_LEFT: Final = 5_000  # ports of 28,000; with less, connecting is as fast as with none
_QUICK: Final = 5  # quick takes this many times fewer samples


class Load:
    """Measures one group after the other; remembers values and notes.

    Parameters
    ----------
    far, ports
        The server.
    seconds
        Of one measurement.
    quick
        Fewer samples, and no warm-up of iperf3's.
    udp
        False where the path carries none.
    sender
        For bulk: "iperf3", "own", or "auto", which is iperf3 where both ends have it.
    """

    def __init__(
        self, far: FarEnd, ports: Ports, *, seconds: float, quick: bool, udp: bool, sender: str
    ) -> None:
        self._far = far
        self._ports = ports
        self._seconds = seconds
        self._fewer = _QUICK if quick else 1
        self._omit = 0 if quick else iperf3.OMIT
        self._quick = quick
        self._udp = udp
        both_have_it = ports.iperf3 is not None and iperf3.path() is not None
        if sender == "iperf3" and not both_have_it:
            raise UsageError("--sender iperf3: not on both ends", hint="install iperf3, or take --sender own")
        self.sender = "iperf3" if both_have_it and sender != "own" else "own"
        self.results: Values = {}
        self.notes: list[str] = []

    def measure(self, group: str) -> None:
        """Measure one group; a network's failure becomes null and a note."""
        run = self._runs()[group]
        try:
            values = run()
        except (OSError, ValueError) as error:
            self.notes.append(f"{group}: not measured: {why(error)}")
            values = dict.fromkeys(GROUPS[group])
        self.results |= values

    def _runs(self) -> dict[str, Callable[[], Values]]:
        return {
            "bulk_up_1": lambda: self._bulk("bulk_up_1", up=True, flows=1),
            "bulk_down_1": lambda: self._bulk("bulk_down_1", up=False, flows=1),
            "bulk_up_4": lambda: self._bulk("bulk_up_4", up=True, flows=4),
            "bulk_down_4": lambda: self._bulk("bulk_down_4", up=False, flows=4),
            "rr": self._request_response,
            "connect": self._connect,
            "rr_under_bulk": self._under_bulk,
            "connects_per_s": self._connects_per_second,
            "udp": self._datagrams,
        }

    def _bulk(self, metric: str, *, up: bool, flows: int) -> Values:
        if self.sender == "iperf3" and self._ports.iperf3 is not None:
            try:
                rate = iperf3.transfer(
                    self._far, self._ports.iperf3, up=up, flows=flows, seconds=self._seconds, omit=self._omit
                )
                return {metric: rate}
            except iperf3.Iperf3Error as error:
                self.sender = "own"
                self.notes.append(f"{metric}: iperf3 failed ({error}); from here on with our own sender")
        return {metric: bulk.transfer(self._far, self._ports, up=up, flows=flows, seconds=self._seconds)}

    def _request_response(self) -> Values:
        found = self._ask()
        return {"rr_p50": found.p50, "rr_p99": found.p99}

    def _ask(self) -> latency.Latency:
        most = latency.MOST // self._fewer
        return latency.request_response(self._far, self._ports.echo, seconds=self._seconds, most=most)

    def _connect(self) -> Values:
        most = latency.MOST_CONNECTS // self._fewer
        found = latency.connect_and_first_byte(self._far, self._ports.echo, seconds=self._seconds, most=most)
        return {"connect_p50": found.p50, "connect_p99": found.p99}

    def _under_bulk(self) -> Values:
        found, rate = self._beside(up=False)
        self.notes.append(
            f"rr_under_bulk: beside a download of {rate / 1e9:.2f} Gbit/s, {found.samples} samples"
        )
        values: Values = {"rr_p50_under_bulk": found.p50, "rr_p99_under_bulk": found.p99}
        if self._quick:  # the other direction is a note anyway
            return values
        try:
            other, rate = self._beside(up=True)
        except (OSError, ValueError) as error:
            self.notes.append(f"rr_under_bulk: not beside an upload: {why(error)}")
        else:
            self.notes.append(
                f"rr_under_bulk: beside an upload of {rate / 1e9:.2f} Gbit/s: p50 {other.p50 * 1e3:.3f} ms, "
                f"p99 {other.p99 * 1e3:.3f} ms, {other.samples} samples"
            )
        return values

    def _beside(self, *, up: bool) -> tuple[latency.Latency, float]:
        with bulk.Beside(self._far, self._ports, up=up, seconds=self._seconds) as flow:
            return self._ask(), flow.rate()

    def _connects_per_second(self) -> Values:
        if (left := timewait.count()) > _MANY_LEFT:
            self.notes.append(f"connects_per_s: {left} ports in TIME_WAIT from before make it slower")
        most = connects.MOST // self._fewer
        found = connects.connects_per_second(self._far, self._ports.echo, seconds=self._seconds, most=most)
        if found.cpu >= _BUSY:
            self.notes.append(f"connects_per_s: the generator is the limit ({found.cpu:.0%} of a core)")
        return {"connects_per_s": found.per_second}

    def _datagrams(self) -> Values:
        nothing: Values = {"udp_pps": None, "udp_loss": None}
        if not self._udp:
            self.notes.append("udp: not measured: this path carries no UDP")
            return nothing
        sender = udp_rate.Sender(self._far, self._ports.udp)
        try:
            found = udp_rate.search(sender.attempt, brief=self._quick)
        finally:
            sender.close()
        if found is None:
            self.notes.append("udp: not measured: no datagram arrived")
            return nothing
        if sender.cpu >= _BUSY:
            self.notes.append(f"udp: the generator is the limit ({sender.cpu:.0%} of a core)")
        return {"udp_pps": found.received_per_second, "udp_loss": found.loss}


def metric_groups(text: str) -> list[str]:
    """Take a list of groups or metrics, for argparse; each group once, in the order of `GROUPS`."""
    homes = {name: group for group, metrics in GROUPS.items() for name in (group, *metrics)}
    wanted = set()
    for name in text.split(","):
        if name.strip() not in homes:
            raise argparse.ArgumentTypeError(f"no metric {name.strip()!r}; there are {', '.join(GROUPS)}")
        wanted.add(homes[name.strip()])
    return [group for group in GROUPS if group in wanted]


def bounded(kind: type[int] | type[float], most: float) -> Callable[[str], float]:
    """Take a number above 0 up to a limit, for argparse."""

    def parse(text: str) -> float:
        try:
            number = kind(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text!r} is no number") from error
        if not 0 < number <= most:
            raise argparse.ArgumentTypeError(f"{text} is not above 0 and up to {most:g}")
        return number

    return parse


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    made = argparse.ArgumentParser(prog=PROG, description="the near end of telemagic bench")
    made.add_argument("--host", required=True, help="where the server is")
    made.add_argument("--ports", required=True, help="what the server printed after `ready`")
    what = made.add_mutually_exclusive_group(required=True)
    what.add_argument("--metrics", type=metric_groups, help=f"some of {','.join(GROUPS)}")
    what.add_argument("--hold", type=bounded(int, MOST_HELD), help="keep so many connections open instead")
    made.add_argument("--seconds", type=bounded(float, LONGEST), default=3.0, help="of one measurement")
    made.add_argument("--quick", action="store_true", help="fewer samples")
    made.add_argument("--no-udp", action="store_true", help="the path carries no UDP")
    made.add_argument("--sender", choices=("auto", "iperf3", "own"), default="auto", help="of bulk")
    return made


def hold(far: FarEnd, port: int, count: int) -> int:
    """Open so many connections, say so, and keep them until the end of standard input."""
    try:
        crowd = connects.hold(far, port, count)
    except OSError as error:
        sys.stderr.write(f"{PROG}: {count} connections cannot be held: {why(error)}\n")
        sys.stderr.write("  try: fewer, or a higher limit of open files (ulimit -n) on both ends\n")
        return 1
    _say(f"holding {count}")
    while os.read(0, 4096):
        pass
    crowd.close()
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; the exit status is 0, 1 for a failure, 2 for a line that cannot be understood."""
    options = parser().parse_args(arguments)
    try:
        far, ports = FarEnd.find(options.host), Ports.from_json(options.ports)
        if options.hold:
            raise_descriptor_limit()
            return hold(far, ports.echo, options.hold)
        load = Load(
            far,
            ports,
            seconds=options.seconds,
            quick=options.quick,
            udp=not options.no_udp,
            sender=options.sender,
        )
        gc.disable()  # a collection would be a latency of ours
        for group in options.metrics:
            load.measure(group)
            _say(json.dumps({"done": group}))
    except UsageError as error:
        sys.stderr.write(f"{PROG}: {error.message}\n  try: {error.hint}\n")
        return 2
    except KeyboardInterrupt:
        return 130  # 128 + SIGINT, as shells count
    _say(json.dumps({"results": load.results, "notes": load.notes, "sender": load.sender}))
    return 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
