"""What is refused: the table of requests that must not be carried out.

Owns the rows; `refusing` sends each of them by each transport that it names, and looks at what follows.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from typing import Final

from tests.blackbox.target import (
    ROOM,
    MiB,
    State,
)
from tests.raw_http import Headers

OCTETS: Final = ("Content-Type", "application/offset+octet-stream")
VERSION: Final = ("Tus-Resumable", "1.0.0")
BIG: Final = 8 * MiB


class Transport(StrEnum):
    """How a request with a body arrives."""

    WHOLE = "in one piece"
    SPLIT = "byte by byte"
    CHUNKED = "in chunks"
    EXPECTING = "waiting for 100 Continue"
    BIG = "with 8 MiB that nobody wants"


ALL: Final = tuple(Transport)
SIZED: Final = (Transport.WHOLE, Transport.SPLIT, Transport.EXPECTING)
"""For what is wrong only with the Content-Length that was told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A request that must not be carried out. `headers` without Host and framing; `offset`: the Upload-Offset
    that must come with the answer; None: there must be none."""

    clause: str
    what: str
    status: int
    code: str
    state: State
    method: str = "PATCH"
    headers: Headers = ()
    body: bytes = b"abc"
    transports: tuple[Transport, ...] = (Transport.WHOLE,)
    target: Callable[[str], str] = str
    allow: str | None = None
    offset: int | None = None


def patch(at: object, *more: tuple[str, str]) -> Headers:
    return (VERSION, OCTETS, ("Upload-Offset", str(at)), *more)


def post(*more: tuple[str, str]) -> Headers:
    return (VERSION, *more)


NONE, _, BEGUN, COMPLETE, DELETED, UNKNOWN = State


def _versions() -> Iterator[Refusal]:
    wrong: dict[str, Headers] = {
        "no version": (),
        "an older version": (("Tus-Resumable", "0.2.2"),),
        "a version that is no version": (("Tus-Resumable", "one"),),
        "an empty version": (("Tus-Resumable", ""),),
        "the version twice": (VERSION, VERSION),
    }
    requests: dict[str, tuple[State, Headers, bytes]] = {
        "POST": (NONE, (("Upload-Length", "10"),), b""),
        "HEAD": (BEGUN, (), b""),
        "PATCH": (BEGUN, patch(5)[1:], b"abc"),
        "DELETE": (BEGUN, (), b""),
    }
    for what, version in wrong.items():
        for method, (state, headers, body) in requests.items():
            yield Refusal(
                clause="A2-A3",
                what=what,
                status=412,
                code="unsupported_version",
                state=state,
                method=method,
                headers=(*version, *headers),
                body=body,
                transports=ALL if method == "PATCH" and not version else (Transport.WHOLE,),
            )


def _methods() -> Iterator[Refusal]:
    refusal = Refusal(clause="A6", what="", status=405, code="method_not_allowed", state=BEGUN, body=b"")
    on_upload, on_collection = "OPTIONS, HEAD, PATCH, DELETE", "OPTIONS, POST"
    for method in ("GET", "PUT", "POST", "TRACE", "LOCK"):
        yield replace(
            refusal,
            what="on an upload",
            method=method,
            headers=(VERSION,),
            allow=on_upload,
            transports=ALL if method == "POST" else (Transport.WHOLE,),
        )
    for method in ("GET", "HEAD", "PATCH", "DELETE", "PUT"):
        yield replace(
            refusal,
            what="on the collection",
            state=NONE,
            method=method,
            headers=(VERSION,),
            allow=on_collection,
        )
    for override in ("GET", "BREW", "", "PATCH, PATCH", "PATCH HEAD"):
        yield replace(
            refusal,
            what=f"method override {override!r}",
            method="POST",
            headers=patch(5, ("X-HTTP-Method-Override", override)),
            allow=on_upload,
        )


NUMBERS: Final = {
    "missing": None,
    "empty": "",
    "negative": "-1",
    "with a sign": "+5",
    "with an underscore": "5_0",
    "a fraction": "5.0",
    "hexadecimal": "0x5",
    "with a space": "5 0",
    "in words": "five",
    "in another script": "\u00b2",
    "above 2**63-1": "9223372036854775808",
    "of a hundred digits": "9" * 100,
}
TWICE: Final = {"twice the same": ("5", "5"), "a list": ("5, 5",), "two different": ("5", "6")}


def _numbers() -> Iterator[Refusal]:
    for what, value in NUMBERS.items():
        told = () if value is None else (("Upload-Offset", value),)
        yield _bad_offset(what, told, ALL if value is None else (Transport.WHOLE,))
        told = () if value is None else (("Upload-Length", value),)
        yield _bad_length(what, told, "length_missing" if value is None else "invalid_length")
    for what, values in TWICE.items():
        yield _bad_offset(what, tuple(("Upload-Offset", value) for value in values), (Transport.WHOLE,))
        yield _bad_length(what, tuple(("Upload-Length", value) for value in values), "invalid_length")


def _bad_offset(what: str, told: Headers, transports: tuple[Transport, ...]) -> Refusal:
    return Refusal(
        clause="A7, A25",
        what=f"Upload-Offset {what}",
        status=400,
        code="invalid_offset",
        state=BEGUN,
        headers=(VERSION, OCTETS, *told),
        transports=transports,
    )


def _bad_length(what: str, told: Headers, code: str) -> Refusal:
    return Refusal(
        clause="A7, A39",
        what=f"Upload-Length {what}",
        status=400,
        code=code,
        state=NONE,
        method="POST",
        headers=(VERSION, *told),
        body=b"",
    )


def _content_types() -> Iterator[Refusal]:
    wrong: dict[str, Headers] = {
        "none": (),
        "empty": (("Content-Type", ""),),
        "application/octet-stream": (("Content-Type", "application/octet-stream"),),
        "one that begins alike": (("Content-Type", "application/offset+octet-streams"),),
        "twice": (OCTETS, OCTETS),
        "a form": (("Content-Type", "multipart/form-data; boundary=application/offset+octet-stream"),),
    }
    for what, headers in wrong.items():
        yield Refusal(
            clause="A24",
            what=f"content type: {what}",
            status=415,
            code="unsupported_content_type",
            state=BEGUN,
            headers=(VERSION, ("Upload-Offset", "5"), *headers),
            transports=ALL if what == "application/octet-stream" else (Transport.WHOLE,),
        )
    yield Refusal(
        clause="A52",
        what="a body of another content type",
        status=415,
        code="unsupported_content_type",
        state=NONE,
        method="POST",
        headers=post(("Upload-Length", "100000000"), ("Content-Type", "text/plain")),
        transports=ALL,
    )


def _offsets_and_sizes() -> Iterator[Refusal]:
    at_begun = Refusal(clause="A26", what="", status=409, code="offset_mismatch", state=BEGUN, offset=5)
    yield replace(at_begun, what="an offset before the bytes", headers=patch(0), transports=ALL)
    yield replace(at_begun, what="an offset one before", headers=patch(4))
    yield replace(at_begun, what="an offset beyond the bytes", headers=patch(6), transports=ALL)
    yield replace(at_begun, what="an empty body at a wrong offset", headers=patch(4), body=b"")
    too_long = replace(at_begun, clause="A31", status=413, code="body_too_long", transports=SIZED)
    yield replace(too_long, what="one byte beyond the length", headers=patch(ROOM - 2))
    yield replace(too_long, what="an offset beyond the length", headers=patch(ROOM + 1), body=b"")
    yield replace(too_long, what="the largest offset", headers=patch(2**63 - 1))
    complete = Refusal(clause="A35", what="", status=403, code="upload_complete", state=COMPLETE)
    yield replace(complete, what="bytes for a complete upload", headers=patch(5), transports=ALL)
    # In chunks it could be empty, as far as the head tells: then the offset is what is wrong.
    sized = tuple(transport for transport in ALL if transport is not Transport.CHUNKED)
    yield replace(complete, what="bytes at 0 for a complete upload", headers=patch(0), transports=sized)
    yield replace(
        complete,
        what="nothing at another offset of a complete upload",
        status=409,
        code="offset_mismatch",
        headers=patch(3),
        body=b"",
        offset=5,
    )
    yield replace(
        complete,
        clause="A48",
        what="another length",
        status=400,
        code="length_changed",
        state=BEGUN,
        headers=patch(5, ("Upload-Length", "6")),
        transports=ALL,
    )


def _missing() -> Iterator[Refusal]:
    gone = Refusal(clause="A71", what="that was deleted", status=410, code="upload_terminated", state=DELETED)
    unknown = Refusal(clause="A28", what="that never was", status=404, code="upload_not_found", state=UNKNOWN)
    for refusal in (gone, unknown):
        yield replace(refusal, headers=patch(0), transports=ALL)
        yield replace(refusal, method="HEAD", headers=(VERSION,), body=b"")
        yield replace(refusal, method="DELETE", headers=(VERSION,), body=b"")
    odd_ids: dict[str, str] = {
        "two dots": "..",
        "two dots, encoded": "%2e%2e",
        "a way out": "../../etc/passwd",
        "a way out, encoded": "..%2f..%2fetc%2fpasswd",
        "a slash": "a/b",
        "a slash, encoded": "a%2fb",
        "a backslash, encoded": "a%5cb",
        "NUL, encoded": "a%00b",
        "a line end, encoded": "a%0d%0ab",
        "a dot": "a.b",
        "a percent sign alone": "%",
        "not UTF-8": "%ff%fe",
        "not ASCII, encoded": "%c3%a9",
        "a space, encoded": "a%20b",
        "10 KB": "a" * 10_000,
        "129 characters": "a" * 129,
        "only an encoded slash": "%2f",
        "a second slash": "/a",
        "one of SQL": "a'%20OR%20'1'='1",
    }
    for what, name in odd_ids.items():
        for method, headers in (("PATCH", patch(0)), ("HEAD", (VERSION,)), ("DELETE", (VERSION,))):
            yield Refusal(
                clause="A28",
                what=f"an id with {what}",
                status=404,
                code="upload_not_found",
                state=NONE,
                method=method,
                headers=headers,
                body=b"abc" if method == "PATCH" else b"",
                target=partial(_beneath, name),
            )


def _beneath(name: str, path: str) -> str:
    return path + name


METADATA: Final = {
    "no Base64": "a !",
    "two values": "a YQ== YQ==",
    "two keys alike": "a YQ==,a Yg==",
    "nothing but a comma": ",",
    "an empty pair": "a YQ==,,b Yg==",
    "a key that is not ASCII": "\u00e9 YQ==",
    "Base64 without its end": "a YQ",
    "Base64 for URLs": "a _-8=",
}


def _creations() -> Iterator[Refusal]:
    bad = Refusal(clause="A44", what="", status=400, code="", state=NONE, method="POST", body=b"")
    ten = ("Upload-Length", "10")
    for what, value in METADATA.items():
        yield replace(
            bad,
            what=f"metadata: {what}",
            code="invalid_metadata",
            headers=post(ten, ("Upload-Metadata", value)),
        )
    large = ("Upload-Metadata", "a " + "YWJj" * 16_000)
    yield replace(bad, clause="A45", what="64 KB", code="metadata_too_large", headers=post(ten, large))
    defer = ("Upload-Defer-Length", "1")
    both = "length_contradicted"
    yield replace(bad, clause="A39", what="a length, and for later", code=both, headers=post(ten, defer))
    for value in ("0", "2", "", "true", "1, 1"):
        told = ("Upload-Defer-Length", value)
        what = f"a length for later: {value!r}"
        yield replace(bad, clause="A40", what=what, code="invalid_header", headers=post(told))
    for kind, code in (
        ("", "invalid_concatenation"),
        ("Partial", "invalid_concatenation"),
        ("final;", "invalid_concatenation"),
        ("final;" + " ".join(["/x"] * 1001), "invalid_concatenation"),
        ("final;/a /b", "invalid_part"),
        ("final;../a", "invalid_part"),
        ("final;//a/b", "invalid_part"),
        ("final;%2e%2e", "invalid_part"),
    ):
        headers = post(("Upload-Concat", kind), *(() if kind.startswith("final;") else (ten,)))
        what = f"concatenation: {kind[:20]}"
        yield replace(bad, clause="A75, A81", what=what, code=code, headers=headers)
    final = post(("Upload-Concat", "final;/a"), ten)
    yield replace(bad, clause="A76", what="a final with a length", code=both, headers=final)
    too_long = replace(bad, status=413, body=b"abc", transports=SIZED)
    yield replace(
        too_long,
        clause="A53",
        what="a body beyond the length",
        code="body_too_long",
        headers=post(("Upload-Length", "2"), OCTETS),
    )
    yield replace(
        bad,
        clause="A42",
        what="a length beyond the limit",
        status=413,
        code="upload_too_large",
        headers=post(("Upload-Length", str(2**63 - 1))),
    )
    yield replace(
        too_long,
        clause="A42",
        what="a length beyond the limit, with a body",
        code="upload_too_large",
        headers=post(("Upload-Length", str(2**63 - 1)), OCTETS),
        transports=ALL,
    )


def _order() -> Iterator[Refusal]:
    """Of several faults the one that comes first in the order of checks is told."""
    refusal = Refusal(clause="A83", what="", status=0, code="", state=BEGUN)
    wrong = (("Content-Type", "text/plain"), ("Upload-Offset", "x"))
    yield replace(
        refusal,
        what="the method before the version",
        status=405,
        code="method_not_allowed",
        method="PUT",
        headers=wrong,
        allow="OPTIONS, HEAD, PATCH, DELETE",
    )
    yield replace(
        refusal, what="the version before headers", status=412, code="unsupported_version", headers=wrong
    )
    yield replace(
        refusal,
        what="headers before the content type",
        status=400,
        code="invalid_offset",
        headers=(VERSION, *wrong),
    )
    yield replace(
        refusal,
        what="the content type before whether it is there",
        status=415,
        code="unsupported_content_type",
        state=UNKNOWN,
        headers=(VERSION, wrong[0], ("Upload-Offset", "0")),
    )
    yield replace(
        refusal,
        what="the size before the offset",
        status=413,
        code="body_too_long",
        headers=patch(ROOM),
        offset=5,
    )


def refusals() -> Iterator[Refusal]:
    """The table."""
    tables = (_versions, _methods, _numbers, _content_types, _offsets_and_sizes, _missing, _creations, _order)
    for rows in tables:
        yield from rows()
