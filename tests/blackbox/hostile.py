"""What no client should send: the server answers or closes, changes nothing and lives on."""

import contextlib
from functools import partial
from typing import Final

from tests.blackbox.refusals import OCTETS, VERSION, patch
from tests.blackbox.target import FIRST, Checks, State, Subject, Target
from tests.raw_http import ConnectionEnded, head_of

CHECKS: Final = Checks()
HOST: Final = ("Host", "t")


def _raw(before: bytes, after: bytes, target: Target) -> None:
    """Some bytes around the path of an upload; whatever is said, nothing may be carried out."""
    subject = target.subject(State.BEGUN)
    with target.connected() as connection:
        connection.send_what_is_taken(before + subject.path.encode() + after)
        try:
            answer = connection.answer("GET")
            assert 400 <= answer.status < 500, answer
        except (ConnectionEnded, ConnectionResetError):
            pass
    target.check_unchanged(subject)


_PATCH: Final = (
    b"Tus-Resumable: 1.0.0\r\nContent-Type: application/offset+octet-stream\r\nUpload-Offset: 5\r\n"
)
_HOST: Final = b" HTTP/1.1\r\nHost: t\r\n"

RAW: Final[dict[str, tuple[bytes, bytes]]] = {
    "two different Content-Lengths": (
        b"PATCH ",
        _HOST + _PATCH + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    ),
    "Content-Length and Transfer-Encoding": (
        b"PATCH ",
        _HOST + _PATCH + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ),
    "Transfer-Encoding and Content-Length": (
        b"PATCH ",
        _HOST + _PATCH + b"Transfer-Encoding: chunked\r\nContent-Length: 13\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ),
    "a negative Content-Length": (b"PATCH ", _HOST + _PATCH + b"Content-Length: -3\r\n\r\nabc"),
    "a Content-Length with a sign": (b"PATCH ", _HOST + _PATCH + b"Content-Length: +3\r\n\r\nabc"),
    "a Content-Length that is a list": (b"PATCH ", _HOST + _PATCH + b"Content-Length: 3, 3\r\n\r\nabc"),
    "a Content-Length of 2**64": (
        b"PATCH ",
        _HOST + _PATCH + b"Content-Length: 18446744073709551616\r\n\r\nabc",
    ),
    "a transfer coding nobody knows": (b"PATCH ", _HOST + _PATCH + b"Transfer-Encoding: gzip\r\n\r\nabc"),
    "NUL in a header": (b"PATCH ", _HOST + _PATCH + b"X: a\0b\r\nContent-Length: 3\r\n\r\nabc"),
    "NUL in the path": (b"PATCH /files/a\0b", _HOST + _PATCH + b"Content-Length: 3\r\n\r\nabc"),
    "a space before a colon": (b"PATCH ", _HOST + _PATCH + b"Content-Length : 3\r\n\r\nabc"),
    "no method": (b" ", _HOST + _PATCH + b"Content-Length: 3\r\n\r\nabc"),
    "a method of another protocol": (b"MAIL FROM ", _HOST + b"\r\n"),
    "HTTP/9.9": (b"PATCH ", b" HTTP/9.9\r\nHost: t\r\n" + b"Content-Length: 3\r\n\r\nabc"),
    "a greeting of TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b""),
    "the preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b""),
}
for _what, (_before, _after) in RAW.items():
    CHECKS.of("HTTP", f"{_what} changes nothing")(partial(_raw, _before, _after))


@CHECKS.of("HTTP", "an upgrade to another protocol is not made; the request is carried out or refused")
def _upgrade(target: Target) -> None:
    path = target.create(10)
    for upgrade in (("websocket", "Upgrade"), ("h2c", "Upgrade, HTTP2-Settings")):
        with target.connected() as connection:
            headers = [HOST, VERSION, ("Upgrade", upgrade[0]), ("Connection", upgrade[1])]
            connection.send(head_of("HEAD", path, headers))
            answer = connection.answer("HEAD")
            assert answer.status == 200 or 400 <= answer.status < 500, answer
    assert target.inspect(path).status == 200


@CHECKS.of("A6", "methods in lower case are not those in upper case")
def _lower_case(target: Target) -> None:
    subject = target.subject(State.BEGUN)
    for method in ("patch", "delete", "Patch"):
        with target.connected() as connection:
            connection.send_what_is_taken(
                head_of(method, subject.path, [HOST, *patch(5), ("Content-Length", "3")]) + b"abc"
            )
            with contextlib.suppress(ConnectionEnded, ConnectionResetError):
                assert 400 <= connection.answer("GET").status < 500
        target.check_unchanged(subject)


@CHECKS.of("HTTP", "a header of 64 KB that nobody reads does no harm")
def _large_header(target: Target) -> None:
    path = target.create(10)
    with target.connected() as connection:
        headers = [HOST, *patch(0), ("X-Large", "x" * 65_536), ("Content-Length", "5")]
        connection.send(head_of("PATCH", path, headers) + FIRST)
        answer = connection.answer("PATCH")
        assert answer.status in (204, 400, 431)
    assert target.inspect(path).offset == (5 if answer.status == 204 else 0)


@CHECKS.of("HTTP", "a thousand headers do no harm")
def _many_headers(target: Target) -> None:
    path = target.create(10)
    with target.connected() as connection:
        headers = [
            HOST,
            *patch(0),
            *((f"X-{number}", "1") for number in range(1000)),
            ("Content-Length", "5"),
        ]
        connection.send(head_of("PATCH", path, headers) + FIRST)
        answer = connection.answer("PATCH")
        assert answer.status in (204, 400, 431)
    assert target.inspect(path).offset == (5 if answer.status == 204 else 0)


@CHECKS.of("HTTP", "a head that never ends is not waited for by others")
def _endless_head(target: Target) -> None:
    subject = target.subject(State.BEGUN)
    with target.connected() as connection:
        connection.send(head_of("PATCH", subject.path, [HOST, *patch(5)])[:-2])
        target.check_unchanged(subject)


@CHECKS.of("A45", "metadata with line ends does not become a header")
def _split_header(target: Target) -> None:
    told = "a YQ==\x0b,b Yg=="
    with target.connected() as connection:
        headers = [HOST, VERSION, ("Upload-Length", "1"), ("Upload-Metadata", told), ("Content-Length", "0")]
        connection.send(head_of("POST", target.path, headers))
        assert 400 <= connection.answer("POST").status < 500


@CHECKS.of("A7", "numbers in the digits of another script are none")
def _other_digits(target: Target) -> None:
    subject = target.subject(State.BEGUN)
    for digits in ("\u0665", "\uff15"):
        with target.connected() as connection:
            told = [f"Upload-Offset: {digits}", "Content-Length: 3"]
            head = head_of("PATCH", subject.path, [HOST, VERSION, OCTETS])[:-2]
            connection.send(head + "\r\n".join(told).encode() + b"\r\n\r\nabc")
            assert connection.answer("PATCH").status == 400
    target.check_unchanged(subject)


@CHECKS.of("HTTP", "connections that end before, within and after the head do no harm")
def _early_ends(target: Target) -> None:
    subject = target.subject(State.BEGUN)
    request = head_of("PATCH", subject.path, [HOST, *patch(5), ("Content-Length", "1000")])
    for size in (0, 1, len(request) // 2, len(request) - 1, len(request)):
        for reset in (False, True):
            with target.connected() as connection:
                connection.send(request[:size])
                if reset:
                    connection.reset()
    target.check_unchanged(subject)


@CHECKS.of("HTTP", "a client that reads no answer does no harm")
def _deaf(target: Target) -> None:
    subject: Subject = target.subject(State.BEGUN)
    request = head_of("PATCH", subject.path, [HOST, *patch(0), ("Content-Length", "3")]) + b"abc"
    with target.connected() as connection:
        connection.socket.settimeout(2)
        try:
            for _ in range(2000):
                connection.send(request)
        except (TimeoutError, ConnectionResetError, BrokenPipeError):
            pass
        target.check_unchanged(subject)
