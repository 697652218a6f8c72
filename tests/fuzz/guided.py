"""One target under atheris: `python -m tests.fuzz.guided TARGET SECONDS`; started by running.py."""

from __future__ import annotations

import sys
import tempfile

import atheris

with atheris.instrument_imports(include=["telehelper", "telemagic"]):
    from tests.fuzz.running import property_of
    from tests.fuzz.targets import TARGETS


def main(name: str, seconds: str) -> None:
    """Fuzz until the time is over; the process ends with libFuzzer's status."""
    target = TARGETS[name]
    test = property_of(target, target.check, 1, shrink=False)
    with tempfile.TemporaryDirectory() as folder:
        options = [
            f"-max_total_time={seconds}",
            "-max_len=4096",
            "-print_final_stats=0",
            f"-artifact_prefix={folder}/",
        ]
        atheris.Setup([sys.argv[0], *options], test.hypothesis.fuzz_one_input)
        atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
