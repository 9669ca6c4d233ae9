"""The checklist of TUS 1.0.0, 74 to 82: what requests say of concatenation, and the life of its uploads."""

from dataclasses import replace
from datetime import timedelta

import pytest

from tests.protocol.samples import (
    ALL,
    EXPIRY,
    HOUR,
    ID,
    NOW,
    OCTETS,
    ask,
    code_of,
    fields_of,
    head_of,
    opened,
    patch_of,
    record_in,
)
from tusserve.protocol import life
from tusserve.protocol.commands import Create, Terminate
from tusserve.protocol.decide import End, Policy, plan, plan_creation
from tusserve.protocol.http import Head, Reply
from tusserve.protocol.life import Chore, chore
from tusserve.protocol.outcomes import Code, Refused
from tusserve.protocol.parts import Fitness, Parts, final_id, fitness
from tusserve.protocol.records import Kind, Reason, UploadRecord, UploadState
from tusserve.protocol.tus1 import Operation, Target

RECEIVING, WAITING, FINISHING, COMPLETE, ENDING, GONE = UploadState
PARTIAL = ("Upload-Concat", "partial")
FINAL = ("Upload-Concat", "final;/files/a http://b/files/b")
LENGTH = ("Upload-Length", "100")


def create_of(head: Head) -> Create:
    command = ALL.read(head, Target(Operation.CREATE, None))
    assert isinstance(command, Create)
    return command


def post(*fields: tuple[str, str]) -> Reply:
    return ask(head_of("POST", *fields), id=None)


def test_a74_a_partial_upload_is_one_like_others() -> None:
    command = create_of(head_of("POST", PARTIAL, LENGTH))
    assert (command.kind, command.parts, command.length, command.concat) == (Kind.PARTIAL, (), 100, "partial")
    assert create_of(head_of("POST", LENGTH)).concat is None


@pytest.mark.parametrize("state", [RECEIVING, COMPLETE])
def test_a74_what_was_said_comes_back_with_head(state: UploadState) -> None:
    told = fields_of(ask(head_of("HEAD"), record_in(state, kind=Kind.PARTIAL, concat="partial")))
    assert told["upload-concat"] == "partial"
    assert "upload-offset" in told


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        ("final;/a", ("/a",)),
        ("final;/a /b /a", ("/a", "/b", "/a")),
        ("final; /a  /b ", ("/a", "/b")),
        ("final;" + " ".join(["/files/x"] * 1000), ("/files/x",) * 1000),
    ],
)
def test_a75_the_parts_of_a_final_are_in_order(value: str, parts: tuple[str, ...]) -> None:
    command = create_of(head_of("POST", ("Upload-Concat", value)))
    assert (command.kind, command.parts, command.length) == (Kind.FINAL, parts, None)
    assert command.concat == value, "it is echoed byte for byte"


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Partial",
        "partial;",
        "partial, partial",
        "final",
        "final;",
        "final;   ",
        "Final;/a",
        " final;/a",
        "final ;/a",
        "nonsense",
        "final;" + " ".join(["/files/x"] * 1001),
    ],
)
def test_a75_what_is_neither_is_400(value: str) -> None:
    reply = (
        post(LENGTH, ("Upload-Concat", value)) if "final;/" not in value else post(("Upload-Concat", value))
    )
    assert (reply.status, code_of(reply)) == (400, "invalid_concatenation")


@pytest.mark.parametrize("first", [PARTIAL, FINAL])
@pytest.mark.parametrize("second", [PARTIAL, FINAL])
def test_a75_a_header_that_is_repeated_is_400(first: tuple[str, str], second: tuple[str, str]) -> None:
    reply = post(LENGTH, first, second)
    assert (reply.status, code_of(reply)) == (400, "invalid_concatenation")


@pytest.mark.parametrize("told", [LENGTH, ("Upload-Length", "x"), ("Upload-Defer-Length", "1")])
def test_a76_a_final_has_no_length_of_its_own(told: tuple[str, str]) -> None:
    reply = post(FINAL, told)
    assert (reply.status, code_of(reply)) == (400, "length_contradicted")


@pytest.mark.parametrize("framing", [("Content-Length", "1"), ("Transfer-Encoding", "chunked")])
def test_a76_a_final_has_no_body(framing: tuple[str, str]) -> None:
    reply = post(FINAL, OCTETS, framing)
    assert (reply.status, code_of(reply)) == (400, "invalid_concatenation")


def a_part(
    state: UploadState = COMPLETE,
    *,
    length: int | None = 10,
    offset: int | None = None,
    name: str = "default",
) -> UploadRecord:
    return replace(record_in(state, kind=Kind.PARTIAL, length=length, offset=offset), name=name)


def test_a76_the_length_of_a_final_is_the_sum() -> None:
    assert Parts(Fitness.READY, (a_part(length=3), a_part(length=4))).total == 7
    unknown = Parts(Fitness.UNFINISHED, (a_part(length=3), a_part(RECEIVING, length=None, offset=2)))
    assert (unknown.total, unknown.least) == (None, 5)
    assembled = life.assemble(opened(create_of(head_of("POST", FINAL))), 7, NOW)
    assert (assembled.state, assembled.length, assembled.offset) == (FINISHING, 7, 7)
    assert assembled.due_at == NOW


@pytest.mark.parametrize("length", [100, None])
def test_a77_what_waits_tells_no_offset(length: int | None) -> None:
    waiting = record_in(WAITING, length=length, concat=FINAL[1])
    told = fields_of(ask(head_of("HEAD"), waiting))
    assert told["upload-concat"] == FINAL[1]
    assert "upload-offset" not in told
    created = fields_of(post(FINAL))
    assert "upload-offset" not in created
    assert "upload-expires" in created


@pytest.mark.parametrize("state", [WAITING, FINISHING, COMPLETE])
@pytest.mark.parametrize("held", [True, False])
@pytest.mark.parametrize(("offset", "size"), [(0, 0), (0, 5), (100, 0), (7, 5)])
def test_a78_patch_on_a_final_is_403(state: UploadState, held: bool, offset: int, size: int) -> None:
    reply = ask(patch_of(offset, size), record_in(state, kind=Kind.FINAL), held=held)
    assert (reply.status, code_of(reply)) == (403, "upload_final")


@pytest.mark.parametrize("state", [ENDING, GONE])
def test_a78_what_has_ended_is_410_first(state: UploadState) -> None:
    assert ask(patch_of(0, 5), record_in(state, kind=Kind.FINAL)).status == 410


@pytest.mark.parametrize("state", UploadState)
def test_a79_a81_what_can_be_a_part(state: UploadState) -> None:
    wanted = {COMPLETE: Fitness.READY, RECEIVING: Fitness.UNFINISHED, FINISHING: Fitness.UNFINISHED}
    assert fitness(replace(record_in(state), kind=Kind.PARTIAL), "default", NOW) is wanted.get(
        state, Fitness.NEVER
    )
    for kind in (Kind.WHOLE, Kind.FINAL):
        assert fitness(replace(record_in(state), kind=kind), "default", NOW) is Fitness.NEVER


def test_a81_what_can_be_no_part() -> None:
    assert fitness(None, "default", NOW) is Fitness.NEVER
    assert fitness(a_part(name="other"), "default", NOW) is Fitness.NEVER
    for state in (COMPLETE, RECEIVING):
        late = replace(a_part(state), expires_at=NOW)
        assert fitness(late, "default", NOW) is Fitness.NEVER
        assert fitness(late, "default", NOW, held=True) is not Fitness.NEVER
        assert fitness(replace(late, expires_at=None), "default", NOW) is not Fitness.NEVER


def test_a80_the_id_of_a_final_is_that_of_its_words() -> None:
    same = final_id("films", "ann", ("a", "b"), "x YQ==")
    assert same == final_id("films", "ann", ("a", "b"), "x YQ==")
    others = {
        final_id("songs", "ann", ("a", "b"), "x YQ=="),
        final_id("films", None, ("a", "b"), "x YQ=="),
        final_id("films", "ann", ("b", "a"), "x YQ=="),
        final_id("films", "ann", ("ab",), "x YQ=="),
        final_id("films", "ann", ("a", "b"), None),
        same,
    }
    assert len(others) == 6
    assert all(len(each) == 32 for each in others)


def test_a82_the_sum_is_limited_like_any_length() -> None:
    command = replace(create_of(head_of("POST", FINAL)), length=11)
    assert plan_creation(command, Policy(max_size=10)) == Refused(code=Code.UPLOAD_TOO_LARGE)
    assert plan_creation(command, Policy(max_size=11)) is None
    short = plan_creation(command, Policy(max_size=20, min_size=12))
    assert short is not None
    assert short.code is Code.LENGTH_TOO_SHORT
    part = replace(create_of(head_of("POST", PARTIAL, LENGTH)), length=1)
    assert plan_creation(part, Policy(max_size=20, min_size=12)) is None


# ---- the life of parts, and of what waits for them


def test_a_complete_part_goes_on_to_expire() -> None:
    done = life.complete(a_part(FINISHING), "sealed", NOW, EXPIRY)
    assert done.due_at == done.expires_at == NOW + EXPIRY.idle
    assert chore(done, NOW + EXPIRY.idle) is Chore.EXPIRE
    assert chore(done, NOW + EXPIRY.idle - timedelta(seconds=1)) is None
    lasting = life.complete(a_part(FINISHING), "sealed", NOW, None)
    assert (lasting.due_at, lasting.expires_at) == (None, None)
    late = replace(done, expires_at=NOW)
    assert ask(head_of("HEAD"), late).status == 410
    assert ask(head_of("HEAD"), late, held=True).status == 200
    assert "upload-expires" in fields_of(ask(head_of("HEAD"), done))
    assert life.end(done, Reason.EXPIRED, NOW).state is ENDING


def test_what_waits_is_looked_at_and_then_expires() -> None:
    record = opened(create_of(head_of("POST", FINAL)))
    assert (record.state, record.parts, record.kind) == (
        WAITING,
        ("/files/a", "http://b/files/b"),
        Kind.FINAL,
    )
    assert record.due_at == NOW + life.FIRST_LOOK
    assert record.expires_at == NOW + EXPIRY.initial
    assert chore(record, NOW + life.FIRST_LOOK) is Chore.ASSEMBLE
    assert chore(record, NOW + EXPIRY.initial) is Chore.EXPIRE
    pauses = []
    for _ in range(6):
        record = life.postpone(record, NOW)
        assert record.due_at is not None
        pauses.append((record.due_at - NOW) // timedelta(minutes=1))
    assert pauses == [2, 4, 8, 15, 15, 15]
    nearly = replace(record, expires_at=NOW + timedelta(minutes=3))
    assert life.postpone(nearly, NOW).due_at == nearly.expires_at
    assert chore(replace(record, expires_at=None), NOW + 10000 * HOUR) is Chore.ASSEMBLE


def test_an_expiry_of_its_own_is_the_last_look_at_what_waits() -> None:
    record = opened(create_of(head_of("POST", FINAL)))
    soon = life.expire_in(record, timedelta(seconds=10))
    assert soon.due_at == soon.expires_at == NOW + timedelta(seconds=10)
    assert life.expire_in(record, HOUR).due_at == NOW + life.FIRST_LOOK


def test_what_waits_can_be_terminated() -> None:
    assert plan(record_in(WAITING), Terminate(id=ID), NOW, held=False) == End(Reason.CLIENT)


def test_records_from_before_concatenations_can_be_read() -> None:
    record = record_in(WAITING, concat=FINAL[1])
    columns = {
        "id": record.id,
        "name": record.name,
        "owner": record.owner,
        "state": record.state,
        "created_at": record.created_at,
        "due_at": record.due_at,
        "revision": record.revision,
    }
    assert UploadRecord.load(record.dump(), **columns) == record  # type: ignore[arg-type]
    old = record.dump().replace(b',"concat":"final;/files/a http://b/files/b"', b"")
    assert b"concat" not in old
    assert UploadRecord.load(old, **columns) == replace(record, concat=None)  # type: ignore[arg-type]
