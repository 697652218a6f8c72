"""`python -m tests.supply --licences` writes docs/licences.md, `--sbom FILE` the bill of materials as CycloneDX JSON."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import telehelper

from tests.supply.licences import markdown
from tests.supply.sbom import ROOT, bill


def main() -> None:
    """Write what is asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.supply", description=__doc__)
    parser.add_argument("--licences", action="store_true")
    parser.add_argument("--sbom", type=Path, metavar="FILE")
    options = parser.parse_args()
    if options.licences:
        (ROOT / "docs" / "licences.md").write_text(markdown())
    if options.sbom:
        options.sbom.parent.mkdir(parents=True, exist_ok=True)
        options.sbom.write_text(json.dumps(bill(telehelper.__version__), indent=1) + "\n")


if __name__ == "__main__":
    main()
