"""Fuzz by hand: `python -m tests.fuzz --minutes 60 [--atheris] [TARGET …]`; new findings are put into the corpus."""

from __future__ import annotations

import argparse
import logging
import sys
import time
from typing import Final

from tests.fuzz.running import Outcome, by_atheris, by_hypothesis, table
from tests.fuzz.targets import TARGETS

TURN: Final = 30.0  # seconds for a target before the next has its turn


def main() -> int:
    """Run the targets in turn; the exit status is 1 if anything was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0, help="for all targets together; default: 1")
    parser.add_argument("--atheris", action="store_true", help="guided by coverage: pip install atheris")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    options = parser.parse_args()
    if unknown := set(options.targets) - TARGETS.keys():
        parser.error(f"no target {', '.join(unknown)}")
    logging.disable()
    run = by_atheris if options.atheris else by_hypothesis
    outcomes = [Outcome(TARGETS[name]) for name in options.targets or TARGETS]
    end = time.monotonic() + options.minutes * 60
    while (left := end - time.monotonic()) > 0:
        turn = min(TURN, left / len(outcomes))
        for outcome in outcomes:
            known = set(outcome.findings)
            run(outcome, max(turn, 1.0))
            for line in outcome.findings.keys() - known:
                found = outcome.findings[line]
                where = f" kept in {outcome.target.keep(found)}" if found is not None else ""
                sys.stdout.write(f"FOUND by {outcome.target.name}: {line}{where}\n")
        sys.stdout.write(f"{table(outcomes)}\n\n")
        sys.stdout.flush()
    return int(any(outcome.findings for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
