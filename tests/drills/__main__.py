"""Run all drills, or those whose name has one of the words given, and write docs/drills.md: `python -m tests.drills [WORD …]`.

Whatever takes longer than promised fails here. ``--table`` writes the table only, with the results that it has.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Final

from tests.demo.clusters import private_runtime, start
from tests.drills import elsewhere
from tests.drills.running import Runner
from tests.drills.table import DRILLS, markdown

TABLE: Final = Path(__file__).parents[2] / "docs" / "drills.md"
COLUMNS: Final = 7


def known() -> dict[str, str]:
    """Read the results of the last run from the table."""
    found = {}
    for line in TABLE.read_text().splitlines() if TABLE.exists() else []:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == COLUMNS:
            found[f"{cells[0]} @ {cells[1]}"] = cells[-1].partition(", `")[0]
    return found


def main() -> int:
    """Run them; the exit status is 1 if a promise was not kept, or late."""
    parser = argparse.ArgumentParser(prog="python -m tests.drills", description=__doc__)
    parser.add_argument("--table", action="store_true", help="write the table, and run nothing")
    parser.add_argument("words", nargs="*", metavar="WORD")
    options = parser.parse_args()
    results, failed = known(), 0
    wanted = [] if options.table else [drill for drill in DRILLS if _is_meant(drill.name, options.words)]
    here = [drill for drill in wanted if not drill.covered_by]
    if here:
        with private_runtime(), start(owned=True) as cluster:
            runner = Runner(cluster, {drill.name for drill in here}, at_once=1)  # for their seconds are kept
            for drill in here:
                result = runner.of(drill.name, drill.group)
                results[drill.name] = result.word
                failed += bool(result.failure) or result.is_late
                _say(f"{drill.name}: {result.word}\n{result.failure}")
            runner.close()
    for name, word, why in elsewhere.run([drill for drill in wanted if drill.covered_by]):
        results[name] = word
        failed += word == "failed"
        _say(f"{name}: {word}\n{why}")
    TABLE.parent.mkdir(exist_ok=True)
    TABLE.write_text(markdown(results))
    return int(failed > 0)


def _is_meant(name: str, words: list[str]) -> bool:
    return not words or any(word in name for word in words)


def _say(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
