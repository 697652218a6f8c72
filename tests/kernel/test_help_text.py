from __future__ import annotations

import argparse

from telemagic.help_text import HelpFormatter, fold


def test_prose_is_folded() -> None:
    assert fold("one two three\nfour five", 12) == "one two\nthree four\nfive"


def test_a_table_is_folded_within_its_last_column() -> None:
    table = "name   str    of the service that was meant by it\nport   Int64  its number"
    assert fold(table, 40).splitlines() == [
        "name   str    of the service that was",
        "              meant by it",
        "port   Int64  its number",
    ]


def test_a_last_column_without_room_is_folded_below_the_second() -> None:
    line = "a  bbbbbbbbbbbbbbbbbbbbb  what stands here is long"
    assert fold(line, 40).splitlines() == ["a  bbbbbbbbbbbbbbbbbbbbb  what stands", "   here is long"]


def test_indented_lines_stay_indented() -> None:
    assert fold("faults are\n    cut    all of it goes\n    slow   1 KB/s", 80) == (
        "faults are\n    cut    all of it goes\n    slow   1 KB/s"
    )
    assert fold("    cut    all of the connections go", 35).splitlines() == [
        "    cut    all of the connections",
        "           go",
    ]


def test_words_are_never_broken() -> None:
    assert (
        fold("see  /usr/local/libexec/tele-magic/and/more", 20)
        == "see\n     /usr/local/libexec/tele-magic/and/more"
    )


def test_subcommands_stand_below_their_title_without_a_metavariable() -> None:
    parser = argparse.ArgumentParser("tele", formatter_class=HelpFormatter, add_help=False)
    below = parser.add_subparsers(metavar="COMMAND", title="commands")
    below.add_parser("beginning", help="begin")
    below.add_parser("down", help="end")
    assert parser.format_help() == (
        "usage: tele COMMAND ...\n\ncommands:\n  beginning  begin\n  down       end\n"
    )
