"""Imports that an interrupt does not break off."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from telemagic import late

# Presses Stop again and again while `load` runs, and says how often that was in vain and what is there in the end.
SCRIPT = """
    import signal, sys
    from telemagic import late

    for name in sys.argv[1:]:
        stopped = 0
        for seconds in (0.003, 0.01, 0.03, 0.1, 0):
            signal.setitimer(signal.ITIMER_REAL, seconds)
            try:
                late.load(name)
            except KeyboardInterrupt:
                stopped += 1
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(name, stopped > 0, end=" ")
    import pandas, yaml
    print(len(pandas.DataFrame({"a": [1]})), yaml.safe_load("1"))
"""


def test_stop_ends_the_waiting_and_not_the_import() -> None:
    script = "import signal\nsignal.signal(signal.SIGALRM, signal.default_int_handler)\n" + textwrap.dedent(
        SCRIPT
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "yaml", "pandas"], capture_output=True, text=True, check=True
    )
    assert done.stdout == "yaml True pandas True 1 1\n"
    assert done.stderr == ""


def test_what_is_not_there_is_said_where_it_is_wanted() -> None:
    for _ in range(2):
        with pytest.raises(ModuleNotFoundError, match="nothing_of_this_name"):
            late.load("nothing_of_this_name")
