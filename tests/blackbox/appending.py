"""PATCH and DELETE: bodies in every framing, overrides, pipelines, HTTP/1.0."""

import random
from collections.abc import Sequence
from functools import partial
from typing import Final

from tests.blackbox.refusals import VERSION, patch
from tests.blackbox.target import FIRST, ROOM, Checks, MiB, State, Target, check_protocol, code_of, files_of
from tests.raw_http import chunked, head_of

CHECKS: Final = Checks()
HOST: Final = ("Host", "t")
CHUNKED: Final = ("Transfer-Encoding", "chunked")


def sized(data: bytes) -> tuple[str, str]:
    """The header that tells how many bytes follow."""
    return ("Content-Length", str(len(data)))


@CHECKS.of("A27", "a file goes up in pieces of odd sizes, on one connection")
def _pieces(target: Target) -> None:
    data = random.Random(1).randbytes(700_001)
    path = target.create(len(data))
    at = 0
    with target.connected() as connection:
        for size in (1, 2, 63, 1024, 65_535, 65_536, 65_537, 262_145, 10**9):
            piece = data[at : at + size]
            answer = connection.append(path, at, piece)
            at += len(piece)
            assert (answer.status, answer.offset) == (204, at)
            check_protocol(answer)
            assert connection.inspect(path).offset == at
    target.check_bytes(path, data)


def _in_chunks(sizes: Sequence[int], target: Target) -> None:
    data = random.Random(2).randbytes(sum(sizes))
    path = target.create(len(data))
    pieces, at = [], 0
    for size in sizes:
        pieces.append(data[at : at + size])
        at += size
    with target.connected() as connection:
        connection.send(head_of("PATCH", path, [HOST, *patch(0), CHUNKED]) + chunked(pieces))
        answer = connection.answer("PATCH")
        assert (answer.status, answer.offset) == (204, len(data))
        assert connection.inspect(path).offset == len(data)
    target.check_bytes(path, data)


for _what, _sizes in {
    "of one byte": [1] * 300,
    "of growing size": list(range(1, 400)),
    "around 64 KiB": [65_535, 65_536, 65_537],
    "one large, then one byte": [3_000_001, 1],
    "a single one": [10],
}.items():
    CHECKS.of("A32", f"a body in chunks, {_what}")(partial(_in_chunks, _sizes))


@CHECKS.of("A32", "chunks with extensions, upper-case sizes, leading zeros and a trailer")
def _odd_chunks(target: Target) -> None:
    path = target.create(26)
    body = b'1A;name="a;b"\r\nabcdefghijklmnopqrstuvwxyz\r\n000\r\nX-Later: 1\r\n\r\n'
    with target.connected() as connection:
        connection.send(head_of("PATCH", path, [HOST, *patch(0), CHUNKED]) + body)
        assert connection.answer("PATCH").offset == 26
        assert connection.inspect(path).offset == 26
    target.check_bytes(path, b"abcdefghijklmnopqrstuvwxyz")


@CHECKS.of("A31", "a body in chunks that overruns is 413; the upload is not complete, and goes on")
def _overrun(target: Target) -> None:
    path = target.create(10)
    target.append(path, 0, FIRST)
    with target.connected() as connection:
        connection.send(head_of("PATCH", path, [HOST, *patch(5), CHUNKED]) + chunked([b"abc", b"defg"]))
        answer = connection.answer("PATCH")
        assert (answer.status, code_of(answer)) == (413, "body_too_long")
        assert answer.offset == 5
    with target.connected() as connection:
        assert connection.inspect(path).offset == 5
        assert connection.append(path, 5, b"67890").offset == 10
    target.check_bytes(path, b"1234567890")


@CHECKS.of("A31", "an endless body that overruns is answered, and cut off")
def _endless(target: Target) -> None:
    path = target.create(10)
    piece = b"%x\r\n%s\r\n" % (MiB, bytes(MiB))
    with target.connected() as connection:
        connection.send(head_of("PATCH", path, [HOST, *patch(0), CHUNKED]))
        sent = 0
        while connection.send_what_is_taken(piece) and sent < 200:
            sent += 1
        assert sent < 200, "200 MiB were taken for an upload of 10 bytes"
        assert connection.answer("PATCH").status == 413
    assert target.inspect(path).offset == 0


@CHECKS.of("A33", "an empty body at the right offset is 204 and changes nothing")
def _empty(target: Target) -> None:
    subject = target.subject(State.BEGUN)
    with target.connected() as connection:
        for headers, body in (((sized(b""),), b""), ((CHUNKED,), b"0\r\n\r\n"), ((), b"")):
            connection.send(head_of("PATCH", subject.path, [HOST, *patch(5), *headers]) + body)
            answer = connection.answer("PATCH")
            assert (answer.status, answer.offset) == (204, 5)
    target.check_unchanged(subject)


@CHECKS.of("A35", "an empty body at the end of a complete upload is 204, as often as it comes")
def _again(target: Target) -> None:
    subject = target.subject(State.COMPLETE)
    with target.connected() as connection:
        for headers, body in (((sized(b""),), b""), ((CHUNKED,), b"0\r\n\r\n"), ((sized(b""),), b"")):
            connection.send(head_of("PATCH", subject.path, [HOST, *patch(5), *headers]) + body)
            answer = connection.answer("PATCH")
            assert (answer.status, answer.offset) == (204, 5)
    target.check_unchanged(subject)


@CHECKS.of("A48", "the length once more is accepted")
def _length_again(target: Target) -> None:
    path = target.create(10)
    with target.connected() as connection:
        answer = connection.ask("PATCH", path, [*patch(0, ("Upload-Length", "10"))[1:]], FIRST)
        assert (answer.status, answer.offset) == (204, 5)


@CHECKS.of("A8", "names of headers and the content type in any case, parameters on it")
def _case(target: Target) -> None:
    path = target.create(10)
    headers = [
        ("hOST", "t"),
        ("TUS-RESUMABLE", "1.0.0"),
        ("UPLOAD-OFFSET", "0"),
        ("content-TYPE", "Application/Offset+Octet-Stream; charset=binary"),
        ("CONTENT-LENGTH", "5"),
    ]
    with target.connected() as connection:
        connection.send(head_of("PATCH", path, headers) + FIRST)
        assert connection.answer("PATCH").offset == 5


@CHECKS.of("A7", "leading zeros are digits, too, and space before a value is none of it")
def _zeros(target: Target) -> None:
    path = target.create(10)
    with target.connected() as connection:
        headers = [HOST, *patch(" \t 00000"), sized(FIRST)]
        connection.send(head_of("PATCH", path, headers) + FIRST)
        assert connection.answer("PATCH").offset == 5


@CHECKS.of("A54", "a PATCH that is in order is asked for its body, and only then")
def _expecting(target: Target) -> None:
    path = target.create(10)
    with target.connected() as connection:
        headers = [HOST, *patch(0), sized(FIRST), ("Expect", "100-continue")]
        connection.send(head_of("PATCH", path, headers))
        connection.send(FIRST)
        answer = connection.answer("PATCH")
        assert (answer.status, answer.interim, answer.offset) == (204, (100,), 5)
        assert connection.inspect(path).offset == 5


@CHECKS.of("HTTP", "an Expect that is not understood does no harm")
def _odd_expect(target: Target) -> None:
    path = target.create(10)
    with target.connected() as connection:
        connection.send(
            head_of("PATCH", path, [HOST, *patch(0), sized(FIRST), ("Expect", "200-maybe")]) + FIRST
        )
        answer = connection.answer("PATCH")
        assert answer.status in (204, 417)
    assert target.inspect(path).offset == (5 if answer.status == 204 else 0)


# ---- overrides


def _override(actual: str, spelled: str, target: Target) -> None:
    path = target.create(10)
    with target.connected() as connection:
        told = ("X-HTTP-Method-Override", spelled)
        answer = connection.ask(actual, path, [*patch(0, told)[1:]], FIRST)
        assert (answer.status, answer.offset) == (204, 5)
        assert connection.inspect(path).offset == 5


for _actual in ("POST", "GET", "PUT", "DELETE"):
    for _spelled in ("PATCH", "patch", "Patch"):
        CHECKS.of("A5", f"{_actual} with the override {_spelled} is PATCH")(
            partial(_override, _actual, _spelled)
        )


@CHECKS.of("A5", "POST with the override HEAD tells the offset, and the connection goes on")
def _override_head(target: Target) -> None:
    path = target.subject(State.BEGUN).path
    with target.connected() as connection:
        answer = connection.ask("POST", path, [("X-HTTP-Method-Override", "HEAD")])
        assert (answer.status, answer.offset, answer.body) == (200, 5, b"")
        assert connection.inspect(path).offset == 5


@CHECKS.of("A5", "POST with the override DELETE ends the upload")
def _override_delete(target: Target) -> None:
    path = target.subject(State.BEGUN).path
    with target.connected() as connection:
        assert connection.ask("POST", path, [("X-HTTP-Method-Override", "DELETE")]).status == 204
        assert connection.inspect(path).status == 410


@CHECKS.of("A5", "PATCH with the override POST creates")
def _override_post(target: Target) -> None:
    with target.connected() as connection:
        headers = [("X-HTTP-Method-Override", "POST"), ("Upload-Length", "10")]
        assert connection.ask("PATCH", target.path, headers).status == 201


# ---- DELETE


@CHECKS.of("A70, A71", "DELETE of an unfinished upload is 204, and afterwards everything is 410")
def _delete(target: Target) -> None:
    path = target.subject(State.BEGUN).path
    with target.connected() as connection:
        answer = connection.ask("DELETE", path)
        assert answer.status == 204
        check_protocol(answer)
        assert connection.inspect(path).status == 410
        assert connection.append(path, 5, b"abc").status == 410
        assert connection.ask("DELETE", path).status == 410


@CHECKS.of("A70", "DELETE of a complete upload is 204, and its bytes are gone")
def _delete_complete(target: Target) -> None:
    path = target.subject(State.COMPLETE).path
    target.check_bytes(path, FIRST)
    with target.connected() as connection:
        assert connection.ask("DELETE", path).status == 204
        assert connection.inspect(path).status == 410
    if target.folder is not None:
        assert not files_of(target.folder, path.rsplit("/", 1)[-1])


@CHECKS.of("A70", "DELETE with a body that nobody wants is carried out, and the connection goes on")
def _delete_with_body(target: Target) -> None:
    path = target.subject(State.BEGUN).path
    with target.connected() as connection:
        connection.send(head_of("DELETE", path, [HOST, VERSION, sized(bytes(MiB))]) + bytes(MiB))
        answer = connection.answer("DELETE")
        assert answer.status == 204
        if not answer.closes:
            assert connection.inspect(path).status == 410


# ---- connections


@CHECKS.of("HTTP", "requests sent in one packet are answered in their order")
def _pipeline(target: Target) -> None:
    path = target.create(10)
    look = head_of("HEAD", path, [HOST, VERSION])
    first = head_of("PATCH", path, [HOST, *patch(0), sized(FIRST)]) + FIRST
    second = head_of("PATCH", path, [HOST, *patch(5), CHUNKED]) + chunked([b"67", b"890"])
    with target.connected() as connection:
        connection.send(look + first + look + second + look)
        assert connection.answer("HEAD").offset == 0
        assert connection.answer("PATCH").offset == 5
        assert connection.answer("HEAD").offset == 5
        assert connection.answer("PATCH").offset == 10
        assert connection.answer("HEAD").offset == 10
    target.check_bytes(path, b"1234567890")


@CHECKS.of("HTTP", "a refused body does not become the next request")
def _smuggled(target: Target) -> None:
    victim = target.subject(State.BEGUN)
    inner = head_of("DELETE", victim.path, [HOST, VERSION])
    with target.connected() as connection:
        headers = [HOST, *patch(0), sized(inner)]
        connection.send(head_of("PATCH", target.subject(State.UNKNOWN).path, headers) + inner)
        assert connection.answer("PATCH").status == 404
    target.check_unchanged(victim)


@CHECKS.of("HTTP", "a thousand requests on one connection")
def _many(target: Target) -> None:
    path = target.subject(State.BEGUN).path
    look = head_of("HEAD", path, [HOST, VERSION])
    with target.connected() as connection:
        for _ in range(20):
            connection.send(look * 50)
            assert all(connection.answer("HEAD").offset == 5 for _ in range(50))


@CHECKS.of("HTTP", "Connection: close is obeyed")
def _close(target: Target) -> None:
    path = target.create(10)
    with target.connected() as connection:
        answer = connection.ask("PATCH", path, [*patch(0)[1:], ("Connection", "close")], FIRST)
        assert answer.offset == 5
        assert connection.is_closed()


@CHECKS.of("HTTP", "HTTP/1.0: HEAD, PATCH and refusals are answered, then it closes")
def _old(target: Target) -> None:
    path = target.create(10)
    for method, headers, status in (
        ("PATCH", [*patch(0), sized(FIRST)], 204),
        ("HEAD", [VERSION], 200),
        ("PATCH", [*patch(0), sized(FIRST)], 409),
    ):
        with target.connected() as connection:
            body = FIRST if method == "PATCH" else b""
            connection.send(head_of(method, path, headers, "1.0") + body)
            answer = connection.answer(method)
            assert (answer.status, answer.offset) == (status, 5)
            assert connection.is_closed()


@CHECKS.of("HTTP", "HTTP/1.0: nobody is told to go on, as nobody there could know what it means")
def _old_expecting(target: Target) -> None:
    path = target.create(10)
    with target.connected() as connection:
        headers = [*patch(0), sized(FIRST), ("Expect", "100-continue")]
        connection.send(head_of("PATCH", path, headers, "1.0") + FIRST)
        answer = connection.answer("PATCH")
        assert (answer.status, answer.offset) == (204, 5)


@CHECKS.of("HTTP", "the address with scheme and host, a query behind the path")
def _absolute(target: Target) -> None:
    path = target.create(10)
    with target.connected() as connection:
        assert connection.append(f"{path}?token=a/b", 0, FIRST).offset == 5
        host, port = target.address
        assert connection.inspect(f"http://{host}:{port}{path}").offset == 5


@CHECKS.of("HTTP", "the path is the same when its letters are encoded")
def _encoded(target: Target) -> None:
    path = target.subject(State.BEGUN).path
    name = path.rsplit("/", 1)[-1]
    encoded = "".join(f"%{ord(letter):02x}" for letter in name)
    with target.connected() as connection:
        # An id is its own form: the encoded one is another, and names nothing. Never another upload.
        seen = connection.inspect(target.path + encoded)
        assert seen.status in (200, 404)


@CHECKS.of("HTTP", "hundreds of connections that say nothing keep nobody away")
def _silent(target: Target) -> None:
    path = target.subject(State.BEGUN).path
    silent = [target.connected() for _ in range(200)]
    for each in silent:
        each.__enter__().send(b"PATCH ")
    assert target.inspect(path).offset == 5
    for each in silent:
        each.__exit__(None, None, None)


@CHECKS.of("A30", "a body that was announced and never comes does not keep a refusal back for ever")
def _announced(target: Target) -> None:
    subject = target.subject(State.BEGUN)
    with target.connected() as connection:
        connection.send(head_of("PATCH", subject.path, [HOST, *patch(4), ("Content-Length", "10")]))
        answer = connection.answer("PATCH")
        assert answer.status == 409
    target.check_unchanged(subject)


@CHECKS.of("B", "a large refused body is not read to its end, and its answer is there to be read")
def _huge(target: Target) -> None:
    with target.connected() as connection:
        connection.begin_append(target.subject(State.UNKNOWN).path, 0, 40 * MiB)
        connection.send_what_is_taken(bytes(40 * MiB))
        answer = connection.answer("PATCH")
        assert answer.status == 404
        assert answer.closes


@CHECKS.of("A29", "no byte is taken for more than there is room")
def _room(target: Target) -> None:
    path = target.create(ROOM)
    with target.connected() as connection:
        connection.begin_append(path, 0, ROOM + 1)
        answer = connection.answer("PATCH")
        assert answer.status == 413
