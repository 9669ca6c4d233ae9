"""The server under test, seen only through its sockets.

Owns how uploads are brought into a state and how one looks at them again; knows what TUS says and nothing of
tusserve but its error codes. The tables and sequences beside it use it.
"""

import hashlib
import json
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final, TypeAlias
from urllib.parse import urlsplit

from tests.raw_http import Answer, Connection, Headers

MiB: Final = 1024 * 1024
ROOM: Final = 64 * MiB
"""The length of an upload that is to take more bytes: large, so that a big body is refused for what is wrong
with it and not for its size."""
FIRST: Final = b"12345"
"""What an upload that is begun has of its bytes."""


class State(StrEnum):
    """What an upload has gone through before the request under test."""

    NONE = "NONE"
    """There is none: the request is for the collection."""
    NEW = "NEW"
    BEGUN = "BEGUN"
    COMPLETE = "COMPLETE"
    DELETED = "DELETED"
    UNKNOWN = "UNKNOWN"
    """Its id is well-formed, and nobody ever had it."""


@dataclass(frozen=True, slots=True)
class Subject:
    """The upload of a check: its path and how it must look when nothing was done to it."""

    path: str
    status: int
    offset: int | None
    length: int | None


class Target:
    """One server. `folder`: where its files land, if that is on this machine."""

    def __init__(self, url: str, folder: Path | None = None) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None, url
        self.address = (parts.hostname, parts.port or 80)
        self.path = parts.path.rstrip("/") + "/"
        self.folder = folder

    @contextmanager
    def connected(self) -> Generator[Connection]:
        """A connection of its own."""
        with Connection(self.address) as connection:
            yield connection

    def create(self, length: int, headers: Headers = ()) -> str:
        """A new upload; its path."""
        with self.connected() as connection:
            answer = connection.ask("POST", self.path, [("Upload-Length", str(length)), *headers])
        assert answer.status == 201, answer
        return location_of(answer)

    def append(self, path: str, at: int, data: bytes) -> None:
        """Bytes that are taken."""
        with self.connected() as connection:
            answer = connection.append(path, at, data)
        assert answer.status == 204, answer
        assert answer.offset == at + len(data)

    def inspect(self, path: str) -> Answer:
        """HEAD on a connection of its own."""
        with self.connected() as connection:
            return connection.inspect(path)

    def subject(self, state: State) -> Subject:
        """An upload in this state."""
        if state is State.NONE:
            return Subject(self.path, 405, None, None)
        if state is State.UNKNOWN:
            return Subject(f"{self.path}ffffffffffffffffffffffffffffffff", 404, None, None)
        length = len(FIRST) if state is State.COMPLETE else ROOM
        path = self.create(length)
        if state in (State.BEGUN, State.COMPLETE):
            self.append(path, 0, FIRST)
        if state is State.DELETED:
            with self.connected() as connection:
                assert connection.ask("DELETE", path).status == 204
            return Subject(path, 410, None, None)
        return Subject(path, 200, 0 if state is State.NEW else len(FIRST), length)

    def check_unchanged(self, subject: Subject) -> None:
        """It looks as it did."""
        seen = self.inspect(subject.path)
        assert seen.status == subject.status, seen
        assert seen.one("upload-offset") == _text(subject.offset), seen
        assert seen.one("upload-length") == _text(subject.length), seen

    def check_bytes(self, path: str, expected: bytes) -> None:
        """The file has exactly these bytes; nothing is looked at where the folder is not known."""
        if self.folder is None:
            return
        found = stored_at(self.folder, path.rsplit("/", 1)[-1])
        got = found.read_bytes()
        assert len(got) == len(expected)
        assert hashlib.sha256(got).digest() == hashlib.sha256(expected).digest()


def stored_at(folder: Path, upload_id: str) -> Path:
    """The file of a complete upload."""
    found = files_of(folder, upload_id)
    assert len(found) == 1, found
    return found[0]


def files_of(folder: Path, upload_id: str) -> list[Path]:
    """Every file that an upload has, complete or not."""
    return sorted((folder / "data").glob(f"*/*/{upload_id}*"))


def location_of(answer: Answer) -> str:
    """The path of the Location, absolute or not."""
    location = answer.one("location")
    assert location is not None, answer
    return urlsplit(location).path


def code_of(answer: Answer) -> str:
    """The code of a problem document, which must be one."""
    assert answer.one("content-type") == "application/problem+json", answer
    document = json.loads(answer.body)
    assert document["status"] == answer.status, answer
    assert document["detail"], answer
    code = document["code"]
    assert isinstance(code, str)
    return code


def check_protocol(answer: Answer) -> None:
    """What holds for every answer of the app but that to OPTIONS."""
    assert answer.one("tus-resumable") == "1.0.0", answer
    if answer.status >= 400:
        assert answer.one("cache-control") == "no-store", answer


def check_connection_goes_on(target: Target, connection: Connection, answer: Answer, bystander: str) -> None:
    """The next request on the same connection is answered, and for the right upload; or it was said that
    there will be none, and the connection is closed."""
    if answer.closes:
        assert connection.is_closed()
        return
    seen = connection.inspect(bystander)
    assert (seen.status, seen.offset) == (200, len(FIRST)), seen
    assert seen.interim == ()


def _text(number: int | None) -> str | None:
    return None if number is None else str(number)


Run: TypeAlias = Callable[[Target], None]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that must hold. `clause`: its number in the project's checklist, or what it is about."""

    clause: str
    sentence: str
    run: Run

    def __str__(self) -> str:
        return f"{self.clause}: {self.sentence}"


class Checks(list[Check]):
    """Checks in their order; as a decorator it adds one."""

    def of(self, clause: str, sentence: str) -> Callable[[Run], Run]:
        """The decorated function is the check of this sentence."""

        def add(run: Run) -> Run:
            self.append(Check(clause, sentence, run))
            return run

        return add
