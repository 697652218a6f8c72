"""Soak by hand: `python -m tests.soak --minutes 30`."""

from __future__ import annotations

import argparse
import sys

from tests.demo.clusters import private_runtime, start
from tests.e2e.inside import run


def main() -> int:
    """Start a demo cluster, soak a connection to it, and print the figures; raises AssertionError if anything leaked."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    seconds = parser.parse_args().minutes * 60
    with private_runtime(), start(owned=True) as cluster:
        sys.stdout.write(run(cluster, f"from tests.soak import long; long.main({seconds})", seconds + 300))
    return 0


if __name__ == "__main__":
    sys.exit(main())
