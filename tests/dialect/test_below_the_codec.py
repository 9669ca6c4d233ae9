"""What lies below a codec knows none: not by an import, not by a header's name, not by a word of TUS."""

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent.parent / "tusserve"
BELOW = (
    "engine.py",
    "reception.py",
    "body.py",
    "lease.py",
    "finishing.py",
    "endings.py",
    "joining.py",
    "protocol/decide.py",
    "protocol/life.py",
)
WORDS = re.compile(
    r"tus1|\btus-|\bupload-(offset|length|complete|defer|metadata|expires|checksum|concat)"
    r"|offset\+octet-stream|partial-upload",
    re.IGNORECASE,
)
"""A codec of tusserve, the names of headers and media types: of TUS, and of the draft."""


def words_of_a_dialect(source: str) -> list[str]:
    """Each place in the code of a module that imports or names something of a dialect. Prose may."""
    tree = ast.parse(source)
    prose = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    named = []
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                said = [name.name for name in names]
            case ast.ImportFrom(module=module, names=names):
                said = [f"{module}.{name.name}" for name in names]
            case ast.Name(id=name) | ast.Attribute(attr=name):
                said = [name]
            case ast.Constant(value=str(text)) if id(node) not in prose:
                said = [text]
            case ast.Constant(value=bytes(data)):
                said = [data.decode("latin-1")]
            case _:
                continue
        named += [f"line {node.lineno}: {each}" for each in said if WORDS.search(each)]
    return named


@pytest.mark.parametrize("module", BELOW)
def test_no_word_of_a_dialect(module: str) -> None:
    assert words_of_a_dialect((PACKAGE / module).read_text()) == []


@pytest.mark.parametrize(
    "source",
    [
        "from tusserve.protocol.tus1 import VERSION",
        "from tusserve.protocol import tus1_answers",
        "import tusserve.protocol.tus1",
        "codec = Tus1()",
        "name = protocol.tus1.VERSION",
        "headers['Upload-Offset'] = '0'",
        "headers = [(b'tus-resumable', b'1.0.0')]",
        "kind = 'application/offset+octet-stream'",
        "complete = head.one('upload-complete')",
    ],
)
def test_a_word_of_a_dialect_is_seen(source: str) -> None:
    assert words_of_a_dialect(source)


def test_prose_may_speak_of_it() -> None:
    assert words_of_a_dialect('"""Where TUS 1.0.0 has Upload-Offset."""\nx = 1  # tus1 does so') == []
