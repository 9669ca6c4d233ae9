"""The table of clauses counts the checks that exist, and the page's counts are theirs."""

import json
import re
from collections import Counter
from pathlib import Path

from tests.blackbox.every_check import CHECKS

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "reference" / "conformance.md"
ROW = re.compile(r"^\| (A\d+) \| ([MSYL]) \| (.+) \| (\d+) \| (\d+) \|$", re.MULTILINE)


def clauses(named: str) -> list[str]:
    """`A2-A4, A7`: four of them."""
    found: list[str] = []
    for first, last in re.findall(r"\bA(\d+)(?:-A(\d+))?", named):
        found += [f"A{number}" for number in range(int(first), int(last or first) + 1)]
    return found


def over_the_wire() -> Counter[str]:
    """How many black-box checks name each clause."""
    return Counter(clause for check in CHECKS for clause in clauses(check.clause))


def in_process() -> Counter[str]:
    """How many test functions are named for each clause: `test_a07_...`."""
    sources = [
        path.read_text() for room in ("app", "protocol") for path in (ROOT / "tests" / room).glob("*.py")
    ]
    return Counter(f"A{int(number)}" for text in sources for number in re.findall(r"def test_a(\d\d)_", text))


def test_the_table_counts_the_checks() -> None:
    wire, process = over_the_wire(), in_process()
    rows = ROW.findall(PAGE.read_text())
    assert [name for name, *_ in rows] == [f"A{number}" for number in range(1, len(rows) + 1)]
    assert set(wire) | set(process) <= {name for name, *_ in rows}
    wrong = [
        f"| {name} | {level} | {words} | {wire[name]} | {process[name]} |"
        for name, level, words, *told in rows
        if told != [str(wire[name]), str(process[name])]
    ]
    assert wrong == [], "rows as they should be:\n" + "\n".join(wrong)


def test_the_page_counts_all_checks() -> None:
    beside = sum(not clauses(check.clause) for check in CHECKS)
    told = re.search(r"(\d+) checks, of which (\d+) are of no clause", PAGE.read_text())
    assert told is not None
    assert told.groups() == (str(len(CHECKS)), str(beside))


def test_the_page_names_the_clients_that_are_installed() -> None:
    package = json.loads((ROOT / "tests" / "interop" / "package.json").read_text())
    text = PAGE.read_text().replace("`", "")
    for name, version in package["dependencies"].items():
        client = re.sub("-5$", "", name)
        assert client == "esbuild" or f"{client} {version.rpartition('@')[2]}" in text, name
