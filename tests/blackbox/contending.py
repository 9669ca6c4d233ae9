"""Bodies that are cut, fall silent or meet others: what is kept, who is told what, and that nobody waits."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import Final

from tests.blackbox.appending import HOST
from tests.blackbox.refusals import VERSION, patch
from tests.blackbox.target import FIRST, ROOM, Checks, MiB, State, Target, code_of
from tests.raw_http import PATIENCE, Answer, Connection, head_of

CHECKS: Final = Checks()


# ---- cut


def _fin(connection: Connection) -> None:
    connection.socket.close()


def _half(connection: Connection) -> None:
    connection.end_sending()
    connection.socket.recv(65536)


def _wait_for(target: Target, path: str, size: int) -> None:
    """Until so many bytes were taken: a request that is cut while it is being looked at may leave nothing."""
    deadline = time.monotonic() + PATIENCE
    while (at := target.inspect(path).offset) < size:
        assert time.monotonic() < deadline, f"only {at} of {size} bytes were taken"


ENDS: Final[dict[str, Callable[[Connection], None]]] = {
    "closed": _fin,
    "half closed": _half,
    "reset": Connection.reset,
}


def _cut(end: Callable[[Connection], None], size: int, target: Target) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    path = target.create(ROOM)
    with target.connected() as connection:
        connection.begin_append(path, 0, ROOM)
        connection.send(data[:size])
        _wait_for(target, path, size)
        end(connection)
    seen = target.inspect(path)
    assert (seen.status, seen.offset) == (200, size)
    target.append(path, size, b"rest")
    assert target.inspect(path).offset == size + 4


for _what, _end in ENDS.items():
    for _size in (1, 5, 65_536, 3 * MiB + 1):
        CHECKS.of("A22, A23", f"a connection {_what} after {_size} bytes keeps them all")(
            partial(_cut, _end, _size)
        )


def _cut_at_once(end: Callable[[Connection], None], size: int, target: Target) -> None:
    path = target.create(ROOM)
    with target.connected() as connection:
        connection.begin_append(path, 0, ROOM)
        connection.send(bytes(size))
        end(connection)
    at = target.inspect(path).offset
    assert 0 <= at <= size
    while True:
        with target.connected() as connection:
            answer = connection.append(path, at, b"rest")
        if answer.status == 204:
            break
        assert answer.status == 409, answer  # its last bytes came in only now
        assert at < answer.offset <= size
        at = answer.offset


for _what, _end in ENDS.items():
    for _size in (0, 1, 65_536, 3 * MiB + 1):
        CHECKS.of("A29", f"a connection {_what} with {_size} bytes on their way keeps a prefix, and goes on")(
            partial(_cut_at_once, _end, _size)
        )


@CHECKS.of("A29", "a body in chunks that is cut is not whole, even between two chunks")
def _cut_between_chunks(target: Target) -> None:
    path = target.create(10)
    with target.connected() as connection:
        headers = [HOST, *patch(0), ("Transfer-Encoding", "chunked")]
        connection.send(head_of("PATCH", path, headers) + b"5\r\n12345\r\n")
        _wait_for(target, path, 5)
    assert target.inspect(path).offset == 5


@CHECKS.of("A29", "a chunk with a broken size ends the body; what came before is kept")
def _broken_chunk(target: Target) -> None:
    path = target.create(10)
    with target.connected() as connection:
        headers = [HOST, *patch(0), ("Transfer-Encoding", "chunked")]
        connection.send(head_of("PATCH", path, headers) + b"5\r\n12345\r\nzz\r\n67890\r\n0\r\n\r\n")
        connection.answer("PATCH")
    assert target.inspect(path).offset in (0, 5)


@CHECKS.of("A35", "a connection cut before the answer to the last byte leaves an upload to be found complete")
def _cut_at_the_end(target: Target) -> None:
    path = target.create(10)
    with target.connected() as connection:
        connection.begin_append(path, 0, 10)
        connection.send(FIRST)
        _wait_for(target, path, 5)
        connection.send(b"67890")
        connection.socket.recv(1)  # the answer begins, and nobody reads it
    seen = target.inspect(path)
    assert (seen.status, seen.offset) == (200, 10)
    target.append(path, 10, b"")  # as a client does that heard nothing
    target.check_bytes(path, b"1234567890")


# ---- silent


@CHECKS.of("A23, A34", "a silent writer makes way: HEAD has its bytes, the next PATCH goes on, it is told so")
def _silent(target: Target) -> None:
    path = target.create(10)
    with target.connected() as stuck:
        stuck.begin_append(path, 0, 10)
        stuck.send(FIRST)
        _wait_for(target, path, 5)
        target.append(path, 5, b"67890")
        answer = stuck.answer("PATCH")
        assert answer.status == 423
        assert code_of(answer) == "upload_interrupted"
        assert answer.closes and stuck.is_closed()
    target.check_bytes(path, b"1234567890")


@CHECKS.of("A34", "a writer that sent nothing yet makes way at once")
def _nothing_yet(target: Target) -> None:
    path = target.create(10)
    with target.connected() as stuck:
        stuck.begin_append(path, 0, 10)
        target.append(path, 0, FIRST)
        assert stuck.answer("PATCH").status == 423
    assert target.inspect(path).offset == 5


@CHECKS.of("A34", "what a silent writer sends after it made way changes nothing")
def _too_late(target: Target) -> None:
    path = target.create(10)
    with target.connected() as stuck:
        stuck.begin_append(path, 0, 10)
        stuck.send(b"12")
        _wait_for(target, path, 2)
        target.append(path, 2, b"345")
        stuck.send_what_is_taken(b"xxxxxxxx")
        assert target.inspect(path).offset == 5
    target.append(path, 5, b"67890")
    target.check_bytes(path, b"1234567890")


@CHECKS.of("A72", "DELETE ends an upload under a silent writer, who is told that it is gone")
def _deleted_under(target: Target) -> None:
    path = target.create(10)
    with target.connected() as stuck, target.connected() as other:
        stuck.begin_append(path, 0, 10)
        stuck.send(FIRST)
        assert other.ask("DELETE", path).status == 204
        answer = stuck.answer("PATCH")
        assert (answer.status, code_of(answer)) == (410, "upload_terminated")
    assert target.inspect(path).status == 410


# ---- lively


class Dripping:
    """A writer that sends some bytes every few milliseconds until it is told to send the rest."""

    def __init__(self, connection: Connection, path: str, length: int) -> None:
        self._connection = connection
        self._length = length
        self.sent = 0
        self._rest = threading.Event()
        connection.begin_append(path, 0, length)
        self._thread = threading.Thread(target=self._drip)
        self._thread.start()

    def _drip(self) -> None:
        while not self._rest.wait(0.01):
            if not self._connection.send_what_is_taken(b"d" * 100):
                return
            self.sent += 100

    def stop(self) -> None:
        """No more drops."""
        self._rest.set()
        self._thread.join()

    def finish(self) -> Answer:
        """Send what is missing, and read the answer."""
        self.stop()
        self._connection.send_what_is_taken(b"d" * (self._length - self.sent))
        return self._connection.answer("PATCH")


@CHECKS.of("A34", "a lively writer is not robbed: a second PATCH is 423 with Retry-After, the first is whole")
def _lively(target: Target) -> None:
    path = target.create(100_000)
    with target.connected() as first, target.connected() as second:
        writer = Dripping(first, path, 100_000)
        try:
            _wait_for(target, path, 1)
            at = target.inspect(path).offset
            answer = second.append(path, at, b"mine")
            assert answer.status in (409, 423), answer
            if answer.status == 423:
                assert int(answer.one("retry-after") or "") > 0
            assert second.append(path, 0, b"mine").status == 409
        finally:
            whole = writer.finish()
        assert (whole.status, whole.offset) == (204, 100_000)
    target.check_bytes(path, b"d" * 100_000)


@CHECKS.of("A22, A23", "HEAD while a writer is lively tells an offset that only grows, and cuts nobody off")
def _lively_head(target: Target) -> None:
    path = target.create(100_000)
    with target.connected() as first:
        writer = Dripping(first, path, 100_000)
        try:
            seen = [target.inspect(path).offset for _ in range(5)]
            assert seen == sorted(seen)
            assert seen[-1] > 0
        finally:
            whole = writer.finish()
        assert whole.offset == 100_000


@CHECKS.of("A72", "DELETE ends an upload under a lively writer")
def _lively_delete(target: Target) -> None:
    path = target.create(ROOM)
    with target.connected() as first, target.connected() as second:
        writer = Dripping(first, path, ROOM)
        try:
            _wait_for(target, path, 1)
            assert second.ask("DELETE", path).status == 204
        finally:
            writer.stop()
        assert first.answer("PATCH").status == 410
    assert target.inspect(path).status == 410


def _at_once(asks: Sequence[Callable[[], Answer]]) -> list[Answer]:
    with ThreadPoolExecutor(len(asks)) as threads:
        return [future.result() for future in [threads.submit(ask) for ask in asks]]


@CHECKS.of("A34", "of eight PATCHes at the same offset one wins, and its bytes alone are there")
def _race(target: Target) -> None:
    for _ in range(3):
        path = target.create(8 * 50_000)
        with ExitStack() as stack:
            bodies = [bytes([65 + number]) * 50_000 for number in range(8)]
            asks = [partial(stack.enter_context(target.connected()).append, path, 0, body) for body in bodies]
            answers = _at_once(asks)
        won = [number for number, answer in enumerate(answers) if answer.status == 204]
        assert len(won) == 1, answers
        assert {answer.status for answer in answers} <= {204, 409, 423}
        assert target.inspect(path).offset == 50_000
        target.append(path, 50_000, b"z" * (7 * 50_000))
        target.check_bytes(path, bodies[won[0]] + b"z" * (7 * 50_000))


@CHECKS.of("A35", "of eight empty PATCHes at the end of an upload all are 204")
def _race_for_nothing(target: Target) -> None:
    path = target.subject(State.COMPLETE).path
    with ExitStack() as stack:
        asks = [partial(stack.enter_context(target.connected()).append, path, 5, b"") for _ in range(8)]
        assert {answer.status for answer in _at_once(asks)} == {204}


@CHECKS.of("A72", "of eight DELETEs one is 204, the others find it gone or taken")
def _race_to_delete(target: Target) -> None:
    path = target.subject(State.BEGUN).path
    with ExitStack() as stack:
        asks = [partial(stack.enter_context(target.connected()).ask, "DELETE", path) for _ in range(8)]
        statuses = sorted(answer.status for answer in _at_once(asks))
    assert statuses.count(204) == 1, statuses
    assert set(statuses) <= {204, 410, 423}
    assert target.inspect(path).status == 410


@CHECKS.of("A34", "many uploads on many connections do not mix")
def _many_uploads(target: Target) -> None:
    def upload(number: int) -> Answer:
        body = bytes([number]) * 200_000
        path = target.create(len(body))
        with target.connected() as connection:
            connection.append(path, 0, body[:100_000])
            answer = connection.append(path, 100_000, body[100_000:])
        target.check_bytes(path, body)
        return answer

    answers = _at_once([partial(upload, number) for number in range(16)])
    assert {(answer.status, answer.offset) for answer in answers} == {(204, 200_000)}


@CHECKS.of("A37", "a PATCH that was answered 409 has not let a lively writer go")
def _refusal_disturbs_nobody(target: Target) -> None:
    path = target.create(10)
    with target.connected() as first, target.connected() as second:
        first.begin_append(path, 0, 10)
        first.send(FIRST)
        assert second.append(path, 9, b"x").status in (409, 423)
        assert (
            second.ask("PATCH", path, [("Upload-Offset", "0"), ("Content-Type", "a/b")], b"x").status == 415
        )
        first.send(b"67890")
        answer = first.answer("PATCH")
        assert (answer.status, answer.offset) == (204, 10)
    target.check_bytes(path, b"1234567890")


@CHECKS.of("HTTP", "two requests in one packet for the same upload do not wait for each other for ever")
def _self_contention(target: Target) -> None:
    path = target.create(10)
    with target.connected() as connection:
        begun = head_of("PATCH", path, [HOST, *patch(0), ("Content-Length", "10")]) + FIRST
        connection.send(begun + b"67890" + head_of("DELETE", path, [HOST, VERSION]))
        assert connection.answer("PATCH").offset == 10
        assert connection.answer("DELETE").status == 204
