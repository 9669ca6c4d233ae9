"""OPTIONS, creation and HEAD, as sequences over a real connection."""

import base64
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Final

from tests.blackbox.refusals import OCTETS, VERSION
from tests.blackbox.target import FIRST, ROOM, Checks, State, Target, check_protocol, location_of
from tests.raw_http import Headers, chunked, head_of

CHECKS: Final = Checks()
ANNOUNCED: Final = {
    "creation",
    "creation-with-upload",
    "creation-defer-length",
    "expiration",
    "checksum",
    "termination",
    "concatenation",
    "concatenation-unfinished",
}


def _options(headers: Headers, below: str, target: Target) -> None:
    with target.connected() as connection:
        answer = connection.ask("OPTIONS", target.path + below, headers)
        assert answer.status == 204, answer
        assert answer.one("tus-version") == "1.0.0"
        extensions = (answer.one("tus-extension") or "").split(",")
        assert set(extensions) == ANNOUNCED
        assert int(answer.one("tus-max-size") or "") > 0
        assert connection.ask("OPTIONS", target.path).status == 204


for _what, _headers in (
    ("without more", ()),
    ("with another version", (("Tus-Resumable", "0.2.2"),)),
    ("with nonsense for a version", (("Tus-Resumable", "x, y"),)),
    ("as a preflight", (("Origin", "http://a.test"), ("Access-Control-Request-Method", "PATCH"))),
):
    for _below in ("", "ffffffffffffffffffffffffffffffff", "..", "%00"):
        CHECKS.of("A4, A9-A13", f"OPTIONS {_what} on {_below or 'the collection'} tells what is there")(
            partial(_options, _headers, _below)
        )


@CHECKS.of("A41", "a new upload is 201 with a Location, and at 0")
def _new(target: Target) -> None:
    with target.connected() as connection:
        answer = connection.ask("POST", target.path, [("Upload-Length", "10")])
        assert answer.status == 201
        check_protocol(answer)
        assert answer.offset == 0
        seen = connection.inspect(location_of(answer))
        assert (seen.status, seen.offset, seen.one("upload-length")) == (200, 0, "10")
        check_protocol(seen)


@CHECKS.of("A41", "the collection is there with and without its slash")
def _slash(target: Target) -> None:
    with target.connected() as connection:
        answer = connection.ask("POST", target.path.rstrip("/"), [("Upload-Length", "10")])
        assert answer.status == 201
        assert location_of(answer).startswith(target.path)


@CHECKS.of("A41", "no two uploads have the same address")
def _unique(target: Target) -> None:
    with target.connected() as connection:
        places = {connection.create(target.path, 1) for _ in range(50)}
    assert len(places) == 50


@CHECKS.of("A38", "a creation without Content-Length has no body")
def _bare(target: Target) -> None:
    with target.connected() as connection:
        connection.send(head_of("POST", target.path, [("Host", "t"), VERSION, ("Upload-Length", "7")]))
        assert connection.answer("POST").status == 201


@CHECKS.of("A43", "an upload of no bytes is complete at once")
def _empty(target: Target) -> None:
    path = target.create(0)
    seen = target.inspect(path)
    assert (seen.status, seen.offset, seen.one("upload-length")) == (200, 0, "0")
    assert seen.one("upload-expires") is None, "what is complete does not expire"
    with target.connected() as connection:
        assert connection.append(path, 0, b"").status == 204
        assert connection.append(path, 0, b"a").status == 403
    target.check_bytes(path, b"")


@CHECKS.of("A42", "the largest length that is announced can be created, one more cannot")
def _largest(target: Target) -> None:
    with target.connected() as connection:
        most = int(connection.ask("OPTIONS", target.path).one("tus-max-size") or "")
        path = connection.create(target.path, most)
        assert connection.inspect(path).one("upload-length") == str(most)
        answer = connection.ask("POST", target.path, [("Upload-Length", str(most + 1))])
        assert answer.status == 413


@CHECKS.of("A16", "HEAD is never cached, and has no body, whatever it finds")
def _uncached(target: Target) -> None:
    for state in (State.NEW, State.BEGUN, State.COMPLETE, State.DELETED, State.UNKNOWN):
        with target.connected() as connection:
            path = target.subject(state).path
            seen = connection.inspect(path)
            assert seen.one("cache-control") == "no-store"
            assert seen.one("content-length") == "0"
            assert connection.inspect(path).status == seen.status  # nothing came in between


@CHECKS.of("A14", "HEAD of a complete upload has its offset")
def _complete(target: Target) -> None:
    seen = target.inspect(target.subject(State.COMPLETE).path)
    assert (seen.status, seen.offset, seen.one("upload-length")) == (200, 5, "5")
    assert seen.one("upload-defer-length") is None


@CHECKS.of("A57, A58", "POST, PATCH and HEAD of an unfinished upload tell when it expires, in GMT")
def _expires(target: Target) -> None:
    with target.connected() as connection:
        created = connection.ask("POST", target.path, [("Upload-Length", "10")])
        path = location_of(created)
        for answer in (created, connection.append(path, 0, b"abc"), connection.inspect(path)):
            told = answer.one("upload-expires") or ""
            assert told.endswith(" GMT") and parsedate_to_datetime(told).tzinfo is not None
        last = connection.append(path, 3, b"defghij")
        assert last.status == 204 and last.one("upload-expires") is None


@CHECKS.of("A57", "a refused PATCH tells the date, too")
def _expires_refused(target: Target) -> None:
    with target.connected() as connection:
        answer = connection.append(target.subject(State.BEGUN).path, 0, b"abc")
        assert answer.status == 409 and answer.one("upload-expires") is not None


ECHOED: Final = {
    "one pair": "filename " + base64.b64encode(b"a.txt").decode(),
    "two pairs": "a YQ==,b Yg==",
    "a key alone": "is_private",
    "a key and a space": "is_private ,a YQ==",
    "spaces around commas": "a YQ== , b Yg==",
    "bytes that are not UTF-8": "a /w==",
    "a value with line ends and NUL": "a " + base64.b64encode(b"x\r\nSet-Cookie: a=b\0").decode(),
    "a value like a path": "filename " + base64.b64encode(b"../../etc/passwd").decode(),
    "8 KB": "a " + "YWJj" * 2040,
}


def _echo(told: str, target: Target) -> None:
    path = target.create(3, [("Upload-Metadata", told)])
    assert target.inspect(path).one("upload-metadata") == told.strip()
    target.append(path, 0, b"abc")
    assert target.inspect(path).one("upload-metadata") == told.strip()


for _what, _told in ECHOED.items():
    CHECKS.of("A19, A44", f"metadata comes back as it was sent: {_what}")(partial(_echo, _told))


@CHECKS.of("A47", "an empty Upload-Metadata is none")
def _no_metadata(target: Target) -> None:
    for told in ("", " ", "\t"):
        path = target.create(1, [("Upload-Metadata", told)])
        assert target.inspect(path).one("upload-metadata") is None


# ---- creation with upload


@CHECKS.of("A52, A55", "a body that is the whole file completes the upload with 201")
def _at_once(target: Target) -> None:
    with target.connected() as connection:
        answer = connection.ask("POST", target.path, [("Upload-Length", "5"), OCTETS], FIRST)
        assert (answer.status, answer.offset) == (201, 5)
        path = location_of(answer)
        assert connection.inspect(path).offset == 5
    target.check_bytes(path, FIRST)


@CHECKS.of("A52", "a body that is a part of the file is kept, and the upload goes on")
def _begin_at_once(target: Target) -> None:
    with target.connected() as connection:
        answer = connection.ask("POST", target.path, [("Upload-Length", "10"), OCTETS], FIRST)
        assert (answer.status, answer.offset) == (201, 5)
        path = location_of(answer)
        assert connection.append(path, 5, b"67890").offset == 10
    target.check_bytes(path, b"1234567890")


@CHECKS.of("A52", "a creation with the content type and no bytes creates")
def _typed(target: Target) -> None:
    with target.connected() as connection:
        answer = connection.ask("POST", target.path, [("Upload-Length", "10"), OCTETS])
        assert (answer.status, answer.offset) == (201, 0)


@CHECKS.of("A32, A52", "a creation takes a body in chunks")
def _chunked(target: Target) -> None:
    headers = [("Host", "t"), VERSION, OCTETS, ("Upload-Length", "5"), ("Transfer-Encoding", "chunked")]
    with target.connected() as connection:
        connection.send(head_of("POST", target.path, headers) + chunked([b"1", b"23", b"45"]))
        answer = connection.answer("POST")
        assert (answer.status, answer.offset) == (201, 5)
    target.check_bytes(location_of(answer), FIRST)


@CHECKS.of("A53", "a creation whose body overruns its length is 413, and nothing is left")
def _overrun(target: Target) -> None:
    headers = [("Host", "t"), VERSION, OCTETS, ("Upload-Length", "5"), ("Transfer-Encoding", "chunked")]
    with target.connected() as connection:
        connection.send(head_of("POST", target.path, headers) + chunked([b"123", b"456"]))
        answer = connection.answer("POST")
        assert answer.status == 413
        assert answer.one("location") is None or connection.inspect(location_of(answer)).status == 410


@CHECKS.of("A54", "a creation that may come with a body asks for it only then")
def _expecting(target: Target) -> None:
    headers = [("Host", "t"), VERSION, OCTETS, ("Content-Length", "5"), ("Expect", "100-continue")]
    with target.connected() as connection:
        connection.send(head_of("POST", target.path, [*headers, ("Upload-Length", "5")]))
        connection.send(FIRST)
        answer = connection.answer("POST")
        assert (answer.status, answer.interim, answer.offset) == (201, (100,), 5)


@CHECKS.of("A53", "a creation whose body is cut leaves an upload that goes on")
def _cut(target: Target) -> None:
    headers = [("Host", "t"), VERSION, OCTETS, ("Content-Length", str(ROOM)), ("Upload-Length", str(ROOM))]
    with target.connected() as connection:
        connection.send(head_of("POST", target.path, headers) + FIRST)
        connection.end_sending()
    # Where it is nobody was told; that the server goes on is all that can be seen from here.
    assert target.inspect(target.create(1)).status == 200
