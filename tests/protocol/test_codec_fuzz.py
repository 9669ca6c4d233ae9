"""Any bytes in the headers: a command or a refusal that can be sent, never an exception."""

import json
from dataclasses import replace

from hypothesis import event, given, settings
from hypothesis import strategies as st

from tests.protocol.samples import ALL, ID, MAX_SIZE, NOW, POLICY, fields_of, record_in
from tusserve.protocol.commands import Append, Create
from tusserve.protocol.decide import plan, plan_creation
from tusserve.protocol.fields import LARGEST_NUMBER
from tusserve.protocol.http import Head, Reply
from tusserve.protocol.outcomes import Code, Created, Inspected, Refused
from tusserve.protocol.records import Kind, UploadState
from tusserve.protocol.tus1 import ANSWERS, EXTENSIONS, Extension, Operation, Tus1

NAMES = (
    b"Tus-Resumable",
    b"Upload-Offset",
    b"Upload-Length",
    b"Upload-Defer-Length",
    b"Upload-Metadata",
    b"Upload-Concat",
    b"Upload-Checksum",
    b"Content-Type",
    b"Content-Length",
    b"Transfer-Encoding",
    b"Expect",
    b"X-HTTP-Method-Override",
)
numbers = st.integers(0, 2**64).map(lambda number: str(number).encode())
plausible = st.sampled_from(
    [b"1.0.0", b"0", b"1", b"40", b"application/offset+octet-stream", b"a Yg==,b", b"PATCH", b"chunked", b""]
)
field_values = plausible | numbers | st.binary(max_size=40)
any_fields = st.tuples(st.sampled_from(NAMES) | st.binary(max_size=20), field_values)
# Most requests are nearly right, so that the faults behind the first are reached as well.
good = [
    st.just((b"tus-resumable", b"1.0.0")),
    st.just((b"content-type", b"application/offset+octet-stream")),
    st.tuples(st.just(b"upload-offset"), st.sampled_from([b"0", b"40"])),
    st.tuples(st.just(b"upload-length"), st.sampled_from([b"0", b"100", b"1001"])),
    st.tuples(st.just(b"content-length"), st.sampled_from([b"0", b"60"])),
    st.just((b"upload-metadata", b"a Yg==")),
]
nearly_right = st.lists(st.sampled_from(good), unique=True, max_size=6).flatmap(lambda some: st.tuples(*some))
methods = st.sampled_from(["OPTIONS", "HEAD", "POST", "PATCH", "DELETE", "GET", "patch", ""]) | st.text(
    max_size=8
)
ids = st.none() | st.just(ID) | st.text(st.characters(max_codepoint=255), max_size=130)


def with_what_they_need(some: set[Extension]) -> frozenset[str]:
    needed = {"creation"} | ({"concatenation"} if "concatenation-unfinished" in some else set())
    return frozenset(some | needed)


codecs = st.builds(
    Tus1,
    extensions=st.sets(st.sampled_from(EXTENSIONS)).map(with_what_they_need),
    max_size=st.just(MAX_SIZE),
    downloads=st.booleans(),
    idempotent_delete=st.booleans(),
)


def assert_can_be_sent(reply: Reply) -> None:
    fields = fields_of(reply)
    assert fields["tus-resumable"] == "1.0.0"
    for name, value in reply.headers:
        assert name == name.lower()
        assert name.isascii()
        assert not set(value.encode("latin-1")) & {0, 10, 13}
    if reply.status == 204:
        assert "content-length" not in fields
    else:
        assert fields["content-length"] == str(len(reply.body))


def assert_is_a_refusal(reply: Reply, refused: Refused, operation: Operation | None) -> None:
    assert_can_be_sent(reply)
    assert reply.status == ANSWERS[refused.code][0]
    assert 400 <= reply.status <= 499
    if operation is Operation.INSPECT:
        assert reply.body == b""
    else:
        assert json.loads(reply.body)["code"] in set(Code)


@given(
    methods,
    st.tuples(nearly_right, st.lists(any_fields, max_size=4)),
    ids,
    st.sampled_from(["1.0", "1.1", "2", "3"]),
    codecs,
)
@settings(deadline=None, max_examples=500)
def test_any_head_is_a_command_or_a_refusal(
    method: str,
    fields: tuple[tuple[tuple[bytes, bytes], ...], list[tuple[bytes, bytes]]],
    id: str | None,
    version: str,
    codec: Tus1,
) -> None:
    head = Head.of(method, [*fields[0], *fields[1]], version)
    operation = codec.operation(head)
    target = codec.route(head, id)
    refused = target if isinstance(target, Refused) else None
    if not isinstance(target, Refused):
        event(target.operation)
        if target.operation in (Operation.CAPABILITIES, Operation.DOWNLOAD):
            assert_can_be_sent(codec.capabilities())
            return
        command = codec.read(head, target)
        if isinstance(command, Refused):
            refused = command
        elif isinstance(command, Create):
            assert_creation(command, codec)
        elif isinstance(command, Append):
            assert_append(command)
    if refused is not None:
        event(refused.code)
        reply = codec.render(refused, operation, id=id)
        if reply.status == 204:
            assert operation is Operation.TERMINATE
            assert_can_be_sent(reply)
        else:
            assert_is_a_refusal(reply, refused, operation)


def assert_creation(command: Create, codec: Tus1) -> None:
    assert command.length is None or 0 <= command.length <= LARGEST_NUMBER
    assert command.carries_body or command.content_length == 0
    record = record_in(UploadState.RECEIVING, metadata=command.metadata)
    record = replace(record, kind=command.kind, concat=command.concat)
    assert (command.kind is Kind.FINAL) == bool(command.parts)
    told = codec.render(Inspected(record), Operation.INSPECT, id=ID)
    assert_can_be_sent(told)
    assert fields_of(told).get("upload-metadata") == command.metadata
    assert_can_be_sent(codec.render(Created(record=record), Operation.CREATE, location="/files/x"))
    if (refused := plan_creation(command, POLICY)) is not None:
        assert_is_a_refusal(codec.render(refused, Operation.CREATE), refused, Operation.CREATE)


def assert_append(command: Append) -> None:
    for number in (command.offset, command.content_length, command.length):
        assert number is None or 0 <= number <= LARGEST_NUMBER
    for record in (None, record_in(UploadState.RECEIVING), record_in(UploadState.RECEIVING, length=None)):
        planned = plan(record, command, NOW, held=False)
        if isinstance(planned, Refused):
            reply = ALL.render(planned, Operation.APPEND, id=ID, record=record)
            assert_is_a_refusal(reply, planned, Operation.APPEND)
