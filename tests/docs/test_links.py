"""The written face holds together: every relative link leads somewhere, every Python block is Python."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def names(path: Path) -> str:
    return str(path.relative_to(ROOT))


def prose(page: Path) -> str:
    """The page without its code, where brackets mean other things."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ +(.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^a-z0-9 _-]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.is_file(), f"{names(page)} links to {target}, which is not there"
        assert there.is_relative_to(ROOT), f"{names(page)} links out of the project: {target}"
        assert not anchor or anchor in anchors(there), f"{names(page)}: no heading #{anchor} in {path}"


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_python_blocks_are_python(page: Path) -> None:
    for block in BLOCK.findall(page.read_text()):
        compile(block, names(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)


def test_every_page_can_be_reached() -> None:
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        reached.add(page)
        targets = {(page.parent / link.partition("#")[0]).resolve() for link in LINK.findall(prose(page))}
        waiting += [target for target in targets if target.suffix == ".md" and target not in reached]
    assert set(PAGES) <= reached


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_lines_stay_readable(page: Path) -> None:
    long = [
        line for line in prose(page).splitlines() if len(line) > 120 and not line.startswith(("|", "    "))
    ]
    assert long == []
