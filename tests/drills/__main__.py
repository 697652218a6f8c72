"""Run all drills, or those whose name has one of the words given, and write docs/drills.md: `python -m tests.drills [WORD …]`.

``--table`` writes the table only, with the results that it has.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Final

from tests.demo.clusters import private_runtime, start
from tests.drills.running import Runner
from tests.drills.table import DRILLS, markdown

TABLE: Final = Path(__file__).parents[2] / "docs" / "drills.md"


def known() -> dict[str, str]:
    """Read the results of the last run from the table."""
    found = {}
    for line in TABLE.read_text().splitlines() if TABLE.exists() else []:
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if len(cells) == 6:
            found[f"{cells[0]} @ {cells[1]}"] = cells[5]
    return found


def main() -> int:
    """Run them; the exit status is 1 if a promise was not kept."""
    parser = argparse.ArgumentParser(prog="python -m tests.drills", description=__doc__)
    parser.add_argument("--table", action="store_true", help="write the table, and run nothing")
    parser.add_argument("words", nargs="*", metavar="WORD")
    options = parser.parse_args()
    results, failed = known(), 0
    wanted = [drill for drill in DRILLS if not drill.covered_by and not options.table]
    wanted = [
        drill for drill in wanted if not options.words or any(word in drill.name for word in options.words)
    ]
    if wanted:
        with private_runtime(), start(owned=True) as cluster:
            runner = Runner(cluster, {drill.name for drill in wanted})
            for drill in wanted:
                result = runner.of(drill.name, drill.group)
                results[drill.name] = result.word
                failed += bool(result.failure)
                sys.stdout.write(f"{drill.name}: {result.word}\n{result.failure}")
                sys.stdout.flush()
            runner.close()
    TABLE.parent.mkdir(exist_ok=True)
    TABLE.write_text(markdown(results))
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
