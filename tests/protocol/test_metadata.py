"""Metadata: what a client may say, what a host reads of it, and that nothing is lost on the way."""

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tusserve.protocol.metadata import LARGEST_METADATA, Metadata
from tusserve.protocol.outcomes import Code, Refused

keys = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters=","), min_size=1)
values = st.binary(max_size=30)


def parsed(raw: str | None) -> Metadata:
    metadata = Metadata.parse(raw)
    assert isinstance(metadata, Metadata)
    return metadata


@given(st.dictionaries(keys, values, max_size=6))
@settings(deadline=None)
def test_what_is_encoded_is_parsed(said: dict[str, bytes]) -> None:
    raw = Metadata.encode(said)
    metadata = parsed(raw)
    assert {key: metadata.bytes(key) for key in metadata} == said
    assert list(metadata) == list(said), "in the order in which it was said"
    assert metadata.raw == raw
    assert Metadata.load(raw) == metadata


@given(st.dictionaries(keys, st.text(st.characters(codec="utf-8"), max_size=30), max_size=6))
@settings(deadline=None)
def test_text_is_utf_8(said: dict[str, str]) -> None:
    assert dict(parsed(Metadata.encode(said))) == said


@given(st.text(st.characters(max_codepoint=255)))
@settings(deadline=None)
def test_any_header_is_metadata_or_refused_and_can_be_echoed(raw: str) -> None:
    metadata = Metadata.parse(raw)
    if isinstance(metadata, Refused):
        assert metadata.code is Code.INVALID_METADATA
    else:
        assert metadata.raw in (raw, "")
        assert all(char == "\t" or " " <= char <= "~" for char in metadata.raw)


@pytest.mark.parametrize("raw", [None, "", " ", " \t "])
def test_nothing_said_is_no_metadata(raw: str | None) -> None:
    metadata = parsed(raw)
    assert len(metadata) == 0
    assert metadata.raw == ""
    assert metadata == Metadata()


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ("a Yg==", {"a": b"b"}),
        ("a", {"a": b""}),
        ("a ", {"a": b""}),
        ("a,b", {"a": b"", "b": b""}),
        ("a Yg==,b ,c Yw==", {"a": b"b", "b": b"", "c": b"c"}),
        ("a Yg==, b Yw==", {"a": b"b", "b": b"c"}),
        ("a Yg==\t,\tb", {"a": b"b", "b": b""}),
        ("A Yg==,a Yw==", {"A": b"b", "a": b"c"}),
        ("file.name/x=y Yg==", {"file.name/x=y": b"b"}),
        ("a +/+/", {"a": b"\xfb\xff\xbf"}),
    ],
)
def test_well_formed(raw: str, said: dict[str, bytes]) -> None:
    metadata = parsed(raw)
    assert {key: metadata.bytes(key) for key in metadata} == said
    assert metadata.raw == raw, "what is echoed is what was sent"


@pytest.mark.parametrize(
    "raw",
    [
        ",",  # an empty key
        "a Yg==,",
        ",a Yg==",
        "a Yg==,,b Yw==",
        " Yg==, Yw==,,",
        "a Yg==,a Yg==",  # a key twice
        "a,a Yw==",
        "a  Yg==",  # two spaces
        "a\tYg==",  # a tab is no space
        "a Yg== c",
        "a Yg",  # no padding
        "a Yg=",
        "a Yg===",
        "a =Yg=",
        "a Y",
        "a Yg==Yg==",  # something behind the padding
        "a -_-_",  # another alphabet
        "a Y!==",
        "a é===",
        "é Yg==",  # keys are ASCII
        "\xff Yg==",
        "a\x00 Yg==",
        "a\r\nSet-Cookie: x Yg==",
        "a\x7f Yg==",
        "a Yg==\x00",
        "a Yg==\r\n,b",
    ],
)
def test_malformed(raw: str) -> None:
    refused = Metadata.parse(raw)
    assert isinstance(refused, Refused)
    assert refused.code is Code.INVALID_METADATA
    with pytest.raises(ValueError, match="Upload-Metadata"):
        Metadata.load(raw)


@pytest.mark.parametrize(("raw", "word"), [(",", "key"), ("a,a", "twice"), ("a Yg", "Base64")])
def test_a_refusal_says_what_is_wrong(raw: str, word: str) -> None:
    refused = Metadata.parse(raw)
    assert isinstance(refused, Refused)
    assert word in (refused.message or "")


def test_it_has_a_limit() -> None:
    fitting = "a" * LARGEST_METADATA
    assert fitting in parsed(fitting)
    refused = Metadata.parse(fitting + "a")
    assert isinstance(refused, Refused)
    assert refused.code is Code.METADATA_TOO_LARGE
    with pytest.raises(ValueError, match="metadata_too_large"):
        Metadata.load(fitting + "a")
    with pytest.raises(ValueError, match="8192"):
        Metadata.encode({fitting + "a": ""})
    assert Metadata.encode({fitting: ""}) == fitting


@pytest.mark.parametrize("key", ["", "a b", "a,b", "a\t", "é", "a\n"])
def test_a_host_cannot_encode_what_a_client_could_not_send(key: str) -> None:
    with pytest.raises(ValueError, match="metadata key"):
        Metadata.encode({key: "x"})


def test_text_that_is_no_utf_8_can_be_read_all_the_same() -> None:
    metadata = parsed("a " + base64.b64encode(b"caf\xe9").decode())
    assert metadata["a"] == "caf�"
    assert metadata.bytes("a") == b"caf\xe9"


def test_it_is_a_mapping_and_a_value() -> None:
    metadata = parsed("a Yg==,b")
    assert metadata == {"a": "b", "b": ""}
    assert metadata != {"a": "b"}
    assert metadata.get("c") is None
    assert "a" in metadata
    with pytest.raises(KeyError):
        metadata.bytes("c")
    assert {metadata, parsed("a Yg==,b")} == {metadata}
    assert metadata != parsed("b,a Yg=="), "another header says another thing"
    assert repr(metadata) == "Metadata({'a': 'b', 'b': ''})"
    with pytest.raises(AttributeError):
        metadata.raw = "x"  # type: ignore[misc]
