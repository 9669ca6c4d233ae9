"""Uploads that are made of others, as sequences over a real connection."""

import random
from functools import partial
from itertools import pairwise
from typing import Final

from tests.blackbox.refusals import OCTETS
from tests.blackbox.target import FIRST, Checks, State, Target, code_of, location_of
from tests.raw_http import Answer, Connection

CHECKS: Final = Checks()
DATA: Final = random.Random(11).randbytes(3_000_001)
PARTIAL: Final = ("Upload-Concat", "partial")


def begin(connection: Connection, target: Target, length: int) -> str:
    """A partial upload that wants all of its bytes."""
    answer = connection.ask("POST", target.path, [("Upload-Length", str(length)), PARTIAL])
    assert (answer.status, answer.offset) == (201, 0 if length else answer.offset), answer
    return location_of(answer)


def part(connection: Connection, target: Target, data: bytes) -> str:
    """A partial upload that is complete."""
    path = begin(connection, target, len(data))
    assert connection.append(path, 0, data).status == 204
    return path


def join(
    connection: Connection, target: Target, *paths: str, more: tuple[tuple[str, str], ...] = ()
) -> Answer:
    return connection.ask("POST", target.path, [("Upload-Concat", "final;" + " ".join(paths)), *more])


def _joining(absolute: bool, target: Target) -> None:
    with target.connected() as connection:
        cuts = (0, 1, 1_000_000, len(DATA))
        paths = [part(connection, target, DATA[a:b]) for a, b in pairwise(cuts)]
        named = [f"http://{target.address[0]}:{target.address[1]}{path}" for path in paths]
        answer = join(connection, target, *(named if absolute else paths))
        assert (answer.status, answer.one("upload-offset")) == (201, None), answer
        path = location_of(answer)
        seen = connection.inspect(path)
        assert (seen.offset, seen.one("upload-length")) == (len(DATA), str(len(DATA)))
        assert seen.one("upload-concat") == "final;" + " ".join(named if absolute else paths)
        for each in paths:
            assert connection.ask("DELETE", each).status == 204
    target.check_bytes(path, DATA)


for _absolute in (False, True):
    CHECKS.of("A75, A76, A77", f"parts are joined, named by {'URL' if _absolute else 'path'}")(
        partial(_joining, _absolute)
    )


@CHECKS.of("A75", "a part may be used twice, and in several finals")
def _twice(target: Target) -> None:
    with target.connected() as connection:
        path = part(connection, target, FIRST)
        for times in (2, 3):
            answer = join(connection, target, *[path] * times)
            assert answer.status == 201, answer
            target.check_bytes(location_of(answer), FIRST * times)


@CHECKS.of("A74", "HEAD tells of a partial upload that it is one, and its offset")
def _telling(target: Target) -> None:
    with target.connected() as connection:
        path = begin(connection, target, 10)
        assert connection.append(path, 0, b"12345").status == 204
        seen = connection.inspect(path)
        assert (seen.one("upload-concat"), seen.offset, seen.one("upload-length")) == ("partial", 5, "10")


@CHECKS.of("A77, A79", "a final waits for its parts, and tells no offset until then")
def _waiting(target: Target) -> None:
    with target.connected() as connection:
        paths = [part(connection, target, FIRST), begin(connection, target, 5)]
        answer = join(connection, target, *paths)
        assert (answer.status, answer.one("upload-offset")) == (201, None), answer
        path = location_of(answer)
        seen = connection.inspect(path)
        assert (seen.status, seen.one("upload-offset"), seen.one("upload-length")) == (200, None, "10"), seen
        assert connection.append(paths[1], 0, b"67890").status == 204
        assert connection.inspect(path).offset == 10
    target.check_bytes(path, b"1234567890")


@CHECKS.of("A79", "a part that is terminated ends the final that waits for it")
def _dying(target: Target) -> None:
    with target.connected() as connection:
        path = begin(connection, target, 5)
        final = location_of(join(connection, target, path))
        assert connection.ask("DELETE", path).status == 204
        assert connection.inspect(final).status == 410
        assert connection.inspect(final).status == 410


@CHECKS.of("A78", "nothing is appended to a final")
def _appending(target: Target) -> None:
    with target.connected() as connection:
        path = location_of(join(connection, target, part(connection, target, FIRST)))
        for at, data in ((0, b""), (len(FIRST), b""), (0, FIRST), (len(FIRST), FIRST)):
            answer = connection.ask("PATCH", path, [OCTETS, ("Upload-Offset", str(at))], data)
            assert (answer.status, code_of(answer)) == (403, "upload_final"), answer
    target.check_bytes(path, FIRST)


@CHECKS.of("A80", "metadata of parts is not that of the final")
def _metadata(target: Target) -> None:
    with target.connected() as connection:
        path = target.create(1, [PARTIAL, ("Upload-Metadata", "a Yg==")])
        assert connection.append(path, 0, b"x").status == 204
        bare = location_of(join(connection, target, path))
        assert connection.inspect(bare).one("upload-metadata") is None
        own = location_of(join(connection, target, path, more=(("Upload-Metadata", "c ZA=="),)))
        assert connection.inspect(own).one("upload-metadata") == "c ZA=="


def _no_part(state: State, target: Target) -> None:
    subject = target.subject(state)
    with target.connected() as connection:
        answer = join(connection, target, part(connection, target, FIRST), subject.path)
        assert (answer.status, code_of(answer)) == (400, "invalid_part"), answer
    target.check_unchanged(subject)


for _state in (State.NEW, State.BEGUN, State.COMPLETE, State.DELETED, State.UNKNOWN):
    CHECKS.of("A81", f"an upload that is no part, {_state}, is refused as one")(partial(_no_part, _state))


@CHECKS.of("A81", "a final is no part")
def _nesting(target: Target) -> None:
    with target.connected() as connection:
        path = location_of(join(connection, target, part(connection, target, FIRST)))
        answer = join(connection, target, path)
        assert (answer.status, code_of(answer)) == (400, "invalid_part"), answer


@CHECKS.of("A82", "the sum of parts is limited like any length")
def _summing(target: Target) -> None:
    with target.connected() as connection:
        most = int(connection.ask("OPTIONS", target.path).one("tus-max-size") or "")
        path = begin(connection, target, most)
        answer = join(connection, target, path, path)
        assert (answer.status, code_of(answer)) == (413, "upload_too_large"), answer
        assert connection.ask("DELETE", path).status == 204


@CHECKS.of("A76", "a final has neither length nor body")
def _own(target: Target) -> None:
    with target.connected() as connection:
        path = part(connection, target, FIRST)
        for more in (("Upload-Length", "5"), ("Upload-Defer-Length", "1")):
            answer = join(connection, target, path, more=(more,))
            assert (answer.status, code_of(answer)) == (400, "length_contradicted"), answer
        named = ("Upload-Concat", f"final;{path}")
        answer = connection.ask("POST", target.path, [OCTETS, named], b"x")
        assert (answer.status, code_of(answer)) == (400, "invalid_concatenation"), answer
