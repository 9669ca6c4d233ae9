"""Each refusal by each way in which a request can arrive.

Owns the transports; each pair of a row and one of its transports is a check. After each of them the upload
must look as before, and the connection must go on or be closed in an orderly way.
"""

from collections.abc import Iterable
from functools import partial

from tests.blackbox.refusals import BIG, Refusal, Transport, refusals
from tests.blackbox.target import (
    FIRST,
    ROOM,
    Check,
    State,
    Target,
    check_connection_goes_on,
    check_protocol,
    code_of,
)
from tests.raw_http import Connection, chunked, head_of


def send_request(connection: Connection, refusal: Refusal, target: str, transport: Transport) -> None:
    """The request, as its transport has it. Whether the body is taken to its end is the server's choice."""
    headers: list[tuple[str, str]] = [("Host", "test"), *refusal.headers]
    size = (
        [("Content-Length", str(len(refusal.body)))]
        if refusal.body or refusal.method in ("POST", "PATCH")
        else []
    )
    match transport:
        case Transport.WHOLE:
            connection.send(head_of(refusal.method, target, [*headers, *size]) + refusal.body)
        case Transport.SPLIT:
            for byte in head_of(refusal.method, target, [*headers, *size]) + refusal.body:
                connection.send(bytes([byte]))
        case Transport.CHUNKED:
            headers.append(("Transfer-Encoding", "chunked"))
            pieces = [bytes([byte]) for byte in refusal.body or b"abc"]
            connection.send(head_of(refusal.method, target, headers) + chunked(pieces))
        case Transport.EXPECTING:
            headers += [("Content-Length", str(len(refusal.body or b"abc"))), ("Expect", "100-continue")]
            connection.send(head_of(refusal.method, target, headers))
        case Transport.BIG:
            headers.append(("Content-Length", str(BIG)))
            connection.send(head_of(refusal.method, target, headers))
            connection.send(bytes(BIG))


def check_refusal(refusal: Refusal, transport: Transport, target: Target) -> None:
    """The whole of one check."""
    bystander = target.create(ROOM)
    target.append(bystander, 0, FIRST)
    subject = target.subject(refusal.state)
    with target.connected() as connection:
        send_request(connection, refusal, refusal.target(subject.path), transport)
        answer = connection.answer(refusal.method)
        assert answer.status == refusal.status, answer
        check_protocol(answer)
        assert answer.interim == (), "its body was asked for"
        if refusal.method != "HEAD":
            assert code_of(answer) == refusal.code, answer
        assert answer.one("upload-offset") == (None if refusal.offset is None else str(refusal.offset)), (
            answer
        )
        assert answer.one("location") is None, answer
        assert answer.one("allow") == refusal.allow, answer
        assert answer.one("tus-version") == ("1.0.0" if refusal.status == 412 else None), answer
        if transport is Transport.EXPECTING:
            assert answer.closes, "a client that still waits for 100 Continue cannot go on here"
        check_connection_goes_on(target, connection, answer, bystander)
    if refusal.state is not State.NONE:
        target.check_unchanged(subject)


def refusal_checks() -> Iterable[Check]:
    """All pairs."""
    for refusal in refusals():
        for transport in refusal.transports:
            sentence = f"{refusal.method} {refusal.what}, {transport}, is {refusal.status} {refusal.code}"
            yield Check(refusal.clause, sentence, partial(check_refusal, refusal, transport))
