"""A request's head and an answer, as values.

Owns what is the same in every dialect of HTTP uploads: headers, the length of a body, the problem document.
Knows no upload and no ASGI. The app makes a `Head` of a scope; codecs read it and make a `Reply`.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

from tusserve.protocol.fields import parse_number
from tusserve.protocol.outcomes import Code, Refused


@dataclass(frozen=True, slots=True)
class Head:
    """The method and headers of a request: names in lower case, values decoded as Latin-1, each repetition
    kept in order."""

    method: str
    headers: Mapping[str, tuple[str, ...]]
    http_version: str = "1.1"

    @classmethod
    def of(cls, method: str, raw: Iterable[tuple[bytes, bytes]], http_version: str = "1.1") -> "Head":
        """The head of what a server hands over; `http_version` is `1.0`, `1.1`, `2` or `3`, as in ASGI."""
        headers: dict[str, tuple[str, ...]] = {}
        repeated: dict[str, list[str]] = {}
        for name, value in raw:
            key = name.decode("latin-1").lower()
            text = value.decode("latin-1")
            if key in headers:
                repeated.setdefault(key, list(headers[key])).append(text)
            else:
                headers[key] = (text,)
        for key, values in repeated.items():
            headers[key] = tuple(values)
        return cls(method, headers, http_version)

    def one(self, name: str) -> str | None:
        """The value of a header by its lower-case name; None: it is not there.

        Repetitions are joined by a comma (RFC 9110, 5.3): a list stays a list, and where one value is wanted
        two of them fit no grammar, so that none of them is believed.
        """
        values = self.headers.get(name)
        if values is None:
            return None
        return values[0] if len(values) == 1 else ", ".join(values)

    @property
    def content_length(self) -> int | Refused | None:
        """How many bytes the body has; None: that is not told beforehand, there may be none."""
        told = self.one("content-length")
        if "transfer-encoding" in self.headers:
            if told is None:
                return None
            # Two parties that believe different ones of the two see different requests: RFC 9112, 6.1.
            return Refused(
                code=Code.INVALID_CONTENT_LENGTH,
                message="A request has Content-Length or Transfer-Encoding, not both.",
            )
        if told is not None:
            length = parse_number(told)
            return Refused(code=Code.INVALID_CONTENT_LENGTH) if length is None else length
        # Without either, HTTP/1 has no body (RFC 9112, 6.3); later versions frame it without telling.
        return 0 if self.http_version.startswith("1") else None

    @property
    def expects_continue(self) -> bool:
        """Whether the client may be waiting for `100 Continue` before it sends the body."""
        expected = self.one("expect")
        return expected is not None and self.http_version != "1.0" and "100-continue" in expected.lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A refusal, as a host's `render_error` gets it.

    `code` is the stable word for programs and `message` the sentence for people; `extra` is what a hook added
    for programs. `status` and `headers` (lower-case names) go into the answer whatever the host renders.
    """

    status: int
    code: str
    message: str
    extra: Mapping[str, object] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    upload_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer, ready to be sent: header names in lower case, Content-Length included where there is to be
    one. `problem` is what the body says, for a host that says it in its own words; None: nothing to say."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""
    problem: Problem | None = None
    code: str | None = None
    """The code of a refusal, also where there is no body that could tell it."""


PROBLEM_TYPE: Final = "application/problem+json"


def problem_json(problem: Problem) -> bytes:
    """The problem document of RFC 9457.

    Its `type` is always `about:blank`, so `title` is the status in words; what went wrong is told apart by
    the member `code`. The members of `extra` follow, except where they would replace one of these.
    """
    document: dict[str, object] = {
        "type": "about:blank",
        "title": _phrase(problem.status),
        "status": problem.status,
        "detail": problem.message,
        "code": problem.code,
    }
    extra = {name: value for name, value in problem.extra.items() if name not in document}
    try:
        return _dump(document | extra)
    except (TypeError, ValueError, RecursionError):
        # A hook's `extra` that is no JSON must not turn its refusal into a failure.
        return _dump(document)


def _dump(document: Mapping[str, object]) -> bytes:
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=str)
    return text.encode("utf-8", "replace")


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Server Error" if status >= 500 else "Client Error"
