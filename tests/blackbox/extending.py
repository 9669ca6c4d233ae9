"""Checksums and lengths that are told later, as sequences over a real connection."""

import hashlib
import random
import zlib
from base64 import b64encode
from functools import partial
from typing import Final

from tests.blackbox.refusals import OCTETS, patch
from tests.blackbox.target import FIRST, Checks, State, Target, code_of, location_of
from tests.raw_http import Answer, Connection, chunked, head_of

CHECKS: Final = Checks()
HOST: Final = ("Host", "test")
DATA: Final = random.Random(9).randbytes(700_001)


def checksum(data: bytes, algorithm: str = "sha1") -> tuple[str, str]:
    """The header for these bytes."""
    if algorithm == "crc32":
        digest = zlib.crc32(data).to_bytes(4, "big")
    else:
        digest = hashlib.new(algorithm, data).digest()
    return "Upload-Checksum", f"{algorithm} {b64encode(digest).decode()}"


def send(
    connection: Connection, path: str, at: int, data: bytes, *more: tuple[str, str], pieces: int = 1
) -> Answer:
    """A PATCH with further headers; in several pieces: as chunks."""
    if pieces == 1:
        return connection.ask("PATCH", path, [OCTETS, ("Upload-Offset", str(at)), *more], data)
    size = -(-len(data) // pieces)
    cut = [data[begin : begin + size] for begin in range(0, len(data), size)]
    headers = [HOST, *patch(at), *more, ("Transfer-Encoding", "chunked")]
    connection.send(head_of("PATCH", path, headers) + chunked(cut))
    return connection.answer("PATCH")


def _matching(algorithm: str, pieces: int, target: Target) -> None:
    path = target.create(len(DATA))
    with target.connected() as connection:
        for at, part in ((0, DATA[:1000]), (1000, DATA[1000:])):
            answer = send(connection, path, at, part, checksum(part, algorithm), pieces=pieces)
            assert (answer.status, answer.offset) == (204, at + len(part)), answer
    target.check_bytes(path, DATA)


for _algorithm in ("sha1", "sha256", "sha512", "md5", "crc32"):
    for _pieces in (1, 9):
        CHECKS.of("A62, A66", f"{_algorithm} of a body in {_pieces}")(partial(_matching, _algorithm, _pieces))


def _mismatching(at: int, pieces: int, target: Target) -> None:
    path = target.create(len(DATA))
    with target.connected() as connection:
        if at:
            assert send(connection, path, 0, DATA[:at]).status == 204
        wrong = DATA[at:-1] + bytes([DATA[-1] ^ 1])
        answer = send(connection, path, at, wrong, checksum(DATA[at:]), pieces=pieces)
        assert (answer.status, answer.offset, code_of(answer)) == (460, at, "checksum_mismatch"), answer
        assert connection.inspect(path).offset == at
        assert send(connection, path, at, DATA[at:], checksum(DATA[at:])).status == 204
    target.check_bytes(path, DATA)


for _at in (0, 1000):
    for _pieces in (1, 9):
        CHECKS.of("A63", f"a body at {_at}, in {_pieces}, that is another one leaves nothing")(
            partial(_mismatching, _at, _pieces)
        )


@CHECKS.of("A67", "a body with a checksum that is cut leaves nothing")
def _cut(target: Target) -> None:
    path = target.create(len(DATA))
    with target.connected() as connection:
        headers = [HOST, *patch(0), checksum(DATA), ("Content-Length", str(len(DATA)))]
        connection.send(head_of("PATCH", path, headers) + DATA[:600_000])
        connection.reset()
    assert target.inspect(path).offset == 0
    target.append(path, 0, DATA)
    target.check_bytes(path, DATA)


@CHECKS.of("A69", "a creation with a body that is not the one is 460, and no upload")
def _creating(target: Target) -> None:
    length = ("Upload-Length", "5")
    with target.connected() as connection:
        answer = connection.ask("POST", target.path, [OCTETS, length, checksum(b"world")], b"hello")
        assert (answer.status, code_of(answer)) == (460, "checksum_mismatch")
        assert answer.one("location") is None
        answer = connection.ask("POST", target.path, [OCTETS, length, checksum(b"hello")], b"hello")
        assert (answer.status, answer.offset) == (201, 5)


@CHECKS.of("A12", "the algorithms are told, sha1 among them")
def _algorithms(target: Target) -> None:
    with target.connected() as connection:
        told = connection.ask("OPTIONS", target.path).one("tus-checksum-algorithm") or ""
    assert told.split(",") == ["sha1", "sha256", "sha512", "md5", "crc32"]


# ---- a length for later


def deferred(connection: Connection, target: Target) -> str:
    answer = connection.ask("POST", target.path, [("Upload-Defer-Length", "1")])
    assert (answer.status, answer.offset) == (201, 0), answer
    return location_of(answer)


@CHECKS.of("A20, A48", "a length for later is told by HEAD until it is known")
def _deferring(target: Target) -> None:
    with target.connected() as connection:
        path = deferred(connection, target)
        seen = connection.inspect(path)
        assert (seen.one("upload-defer-length"), seen.one("upload-length")) == ("1", None)
        assert send(connection, path, 0, DATA[:5]).offset == 5
        assert connection.inspect(path).one("upload-defer-length") == "1"
        assert send(connection, path, 5, DATA[5:9], ("Upload-Length", "10")).offset == 9
        seen = connection.inspect(path)
        assert (seen.one("upload-defer-length"), seen.one("upload-length")) == (None, "10")
        assert send(connection, path, 9, DATA[9:10]).offset == 10
    target.check_bytes(path, DATA[:10])


@CHECKS.of("A48", "an empty PATCH that tells the length ends the upload")
def _declaring(target: Target) -> None:
    with target.connected() as connection:
        path = deferred(connection, target)
        assert send(connection, path, 0, FIRST).status == 204
        assert send(connection, path, len(FIRST), b"", ("Upload-Length", str(len(FIRST)))).status == 204
        assert send(connection, path, len(FIRST), b"x").status == 403
    target.check_bytes(path, FIRST)


@CHECKS.of("A48", "a length of nothing, told later, is a complete upload")
def _declaring_nothing(target: Target) -> None:
    with target.connected() as connection:
        path = deferred(connection, target)
        assert send(connection, path, 0, b"", ("Upload-Length", "0")).status == 204
        seen = connection.inspect(path)
        assert (seen.offset, seen.one("upload-length")) == (0, "0")


def _wrong_length(told: str, status: int, target: Target) -> None:
    with target.connected() as connection:
        path = deferred(connection, target)
        assert send(connection, path, 0, FIRST).status == 204
        answer = send(connection, path, len(FIRST), b"xyz", ("Upload-Length", told))
        assert answer.status == status, answer
        seen = target.inspect(path)
        assert (seen.offset, seen.one("upload-defer-length")) == (len(FIRST), "1")


for _told, _status in (
    (str(len(FIRST) - 1), 400),
    (str(len(FIRST) + 2), 413),
    ("", 400),
    ("1e9", 400),
    (str(2**63 - 1), 413),
    (str(2**63), 400),
):
    CHECKS.of("A48", f"a length of {_told!r} told later is {_status}")(partial(_wrong_length, _told, _status))


@CHECKS.of("A48", "a length that is known does not change")
def _changing(target: Target) -> None:
    subject = target.subject(State.BEGUN)
    with target.connected() as connection:
        answer = send(connection, subject.path, len(FIRST), b"x", ("Upload-Length", "12345"))
        assert (answer.status, code_of(answer)) == (400, "length_changed")
    target.check_unchanged(subject)
