"""TUS 1.0.0, general rules and the order of checks: the lines of the conformance checklist that need no I/O.

The number in the name of a test is that of its line.
"""

import pytest

from tests.protocol.samples import (
    ALL,
    ID,
    OCTETS,
    OUTCOMES,
    ask,
    code_of,
    fields_of,
    head_of,
    patch_of,
    record_in,
)
from tusserve.protocol.commands import Append, Inspect, Terminate
from tusserve.protocol.http import Head
from tusserve.protocol.outcomes import (
    Code,
    Refused,
)
from tusserve.protocol.records import Kind, UploadState
from tusserve.protocol.tus1 import EXTENSIONS, Operation, Target, Tus1

RECEIVING, WAITING, FINISHING, COMPLETE, ENDING, GONE = UploadState

NO_NUMBERS = [
    "",
    " ",
    " 5",
    "5 ",
    "+5",
    "-1",
    "-0",
    "1.5",
    "5_0",
    "0x5",
    "5e1",
    "1 000",
    "5,",
    "5,5",
    "5, 5",
    "\xb2",
    "\xbd",
    "5\x00",
    "5\r\n",
    "five",
    "9223372036854775808",
    "9" * 30,
    "0" * 20,
    "1" * 5000,
]
"""Values that some parser somewhere takes for a number."""


def refused_by_route(head: Head, id: str | None = ID, codec: Tus1 = ALL) -> Code:
    target = codec.route(head, id)
    assert isinstance(target, Refused)
    return target.code


# ---- general


@pytest.mark.parametrize("operation", [*Operation, None])
def test_a01_every_answer_has_the_version_errors_too(operation: Operation | None) -> None:
    for outcome in OUTCOMES:
        reply = ALL.render(outcome, operation, id=ID, location=f"/files/{ID}")
        assert fields_of(reply)["tus-resumable"] == "1.0.0"
    assert fields_of(ALL.capabilities())["tus-resumable"] == "1.0.0"


@pytest.mark.parametrize(
    "versions",
    [
        [],
        [b""],
        [b"0.2.2"],
        [b"1.0"],
        [b"1.0.1"],
        [b"1.0.0 "],
        [b"2.0.0"],
        [b"1.0.0,1.0.0"],
        [b"1.0.0"] * 2,
        [b"\xff"],
    ],
)
@pytest.mark.parametrize(("method", "id"), [("POST", None), ("HEAD", ID), ("PATCH", ID), ("DELETE", ID)])
def test_a02_another_version_or_none_is_412_with_the_one_that_is_spoken(
    versions: list[bytes], method: str, id: str | None
) -> None:
    head = Head.of(method, [(b"Tus-Resumable", version) for version in versions])
    reply = ask(head, record_in(RECEIVING), id=id)
    assert reply.status == 412
    assert fields_of(reply)["tus-version"] == "1.0.0"


def test_a03_such_a_request_gives_no_command_whatever_else_it_says() -> None:
    head = Head.of("PATCH", [(b"Upload-Offset", b"-7")])
    assert refused_by_route(head) is Code.UNSUPPORTED_VERSION
    assert refused_by_route(head, id="../..") is Code.UNSUPPORTED_VERSION


@pytest.mark.parametrize("version", [None, b"", b"0.1", b"nonsense"])
def test_a04_options_ignores_the_version(version: bytes | None) -> None:
    head = Head.of("OPTIONS", [] if version is None else [(b"Tus-Resumable", version)])
    assert ask(head) == ALL.capabilities()


@pytest.mark.parametrize("sent", ["POST", "GET", "PUT", "OPTIONS", "DELETE"])
@pytest.mark.parametrize(
    ("override", "operation"),
    [
        ("PATCH", Operation.APPEND),
        ("patch", Operation.APPEND),
        ("Delete", Operation.TERMINATE),
        ("HEAD", Operation.INSPECT),
        ("OPTIONS", Operation.CAPABILITIES),
    ],
)
def test_a05_an_override_replaces_whatever_method_was_sent(
    sent: str, override: str, operation: Operation
) -> None:
    target = ALL.route(head_of(sent, ("X-HTTP-Method-Override", override)), ID)
    assert isinstance(target, Target)
    assert target.operation is operation


@pytest.mark.parametrize(
    ("method", "override"),
    [
        ("PUT", None),
        ("GET", None),
        ("TRACE", None),
        ("POST", "PUT"),
        ("POST", ""),
        ("POST", "PATCH, PATCH"),
        ("POST", " PATCH"),
        ("POST", "PATCH\x00"),
        ("PATCH", "BREW"),
        ("\xff", None),
        ("", None),
    ],
)
def test_a06_an_unknown_method_is_405_and_says_what_there_is(method: str, override: str | None) -> None:
    overrides = [] if override is None else [("X-HTTP-Method-Override", override)]
    reply = ask(head_of(method, *overrides))
    assert reply.status == 405
    assert fields_of(reply)["allow"] == "OPTIONS, HEAD, PATCH, DELETE"


@pytest.mark.parametrize(
    ("extensions", "downloads", "on_collection", "on_upload"),
    [
        ((), False, "OPTIONS", "OPTIONS, HEAD, PATCH"),
        (("creation",), False, "OPTIONS, POST", "OPTIONS, HEAD, PATCH"),
        (("termination", "expiration"), False, "OPTIONS", "OPTIONS, HEAD, PATCH, DELETE"),
        (EXTENSIONS, True, "OPTIONS, POST", "OPTIONS, HEAD, PATCH, DELETE, GET"),
    ],
)
def test_a06_what_there_is_depends_on_the_extensions_and_the_place(
    extensions: tuple[str, ...], downloads: bool, on_collection: str, on_upload: str
) -> None:
    codec = Tus1(extensions=frozenset(extensions), max_size=1, downloads=downloads)
    for place, allowed in ((None, on_collection), (ID, on_upload)):
        for method in ("OPTIONS", "GET", "HEAD", "POST", "PATCH", "DELETE"):
            routed = codec.route(head_of(method), place)
            assert isinstance(routed, Target) is (method in allowed.split(", ")), (method, place)
            if isinstance(routed, Refused):
                reply = codec.render(routed, codec.operation(head_of(method)), id=place)
                assert reply.status == 405
                assert fields_of(reply)["allow"] == allowed


@pytest.mark.parametrize("text", NO_NUMBERS)
def test_a07_numbers_are_ascii_digits_only(text: str) -> None:
    offset = ask(head_of("PATCH", OCTETS, ("Upload-Offset", text)), record_in(RECEIVING))
    assert (offset.status, code_of(offset)) == (400, "invalid_offset")
    declared = ask(patch_of(40, 1, ("Upload-Length", text)), record_in(RECEIVING, length=None))
    assert (declared.status, code_of(declared)) == (400, "invalid_length")
    length = ask(head_of("POST", ("Upload-Length", text)), id=None)
    assert (length.status, code_of(length)) == (400, "invalid_length")


@pytest.mark.parametrize("values", [("5", "5"), ("5", "6"), ("5", "")])
def test_a07_two_values_are_none_even_if_they_agree(values: tuple[str, ...]) -> None:
    offsets = [("Upload-Offset", value) for value in values]
    assert code_of(ask(head_of("PATCH", OCTETS, *offsets), record_in(RECEIVING))) == "invalid_offset"
    lengths = [("Upload-Length", value) for value in values]
    assert code_of(ask(head_of("POST", *lengths), id=None)) == "invalid_length"


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("007", 7), (str(2**63 - 1), 2**63 - 1)])
def test_a07_every_number_up_to_the_largest_is_read(text: str, number: int) -> None:
    command = ALL.read(patch_of(text, text), Target(Operation.APPEND, ID))
    assert command == Append(id=ID, offset=number, content_length=number)


@pytest.mark.parametrize(
    "content_type",
    [
        "application/offset+octet-stream",
        "Application/OFFSET+octet-stream",
        "application/offset+octet-stream; charset=binary",
        "application/offset+octet-stream;a=b ;c=d",
    ],
)
@pytest.mark.parametrize("name", ["content-type", "Content-Type", "CONTENT-TYPE"])
def test_a08_case_makes_no_difference_and_parameters_are_accepted(name: str, content_type: str) -> None:
    head = head_of("PATCH", (name, content_type), ("UPLOAD-offset", "40"), ("Content-length", "1"))
    assert ALL.read(head, Target(Operation.APPEND, ID)) == Append(id=ID, offset=40, content_length=1)


# ---- the order of checks, and what lies between the lines


def test_a83_faults_are_found_in_the_order_of_the_list() -> None:
    """Each request has all the faults of the ones behind it."""
    worst = (("Content-Type", "text/plain"), ("Upload-Offset", "x"))
    unversioned = Head.of("PATCH", [(b"Upload-Offset", b"x")])
    known = record_in(RECEIVING)
    requests = [
        (Head.of("BREW", []), "..", known, 405),
        (unversioned, "..", known, 412),
        (head_of("PATCH", *worst), "..", known, 404),
        (head_of("PATCH", *worst), ID, None, 400),
        (head_of("PATCH", ("Content-Type", "text/plain"), ("Upload-Offset", "9")), ID, None, 415),
        (patch_of(9, 999, ("Upload-Length", "3")), ID, None, 404),
        (patch_of(9, 999, ("Upload-Length", "3")), ID, record_in(GONE), 410),
        (patch_of(9, 999, ("Upload-Length", "3")), ID, record_in(RECEIVING, kind=Kind.FINAL), 403),
        (patch_of(9, 999, ("Upload-Length", "3")), ID, known, 400),
        (patch_of(9, 999), ID, known, 413),
        (patch_of(9, 9), ID, known, 409),
        (patch_of(40, 9), ID, known, 204),
    ]
    for head, place, record, status in requests:
        assert ask(head, record, id=place).status == status


@pytest.mark.parametrize(
    ("target", "command"),
    [
        (Target(Operation.INSPECT, ID), Inspect(id=ID)),
        (Target(Operation.TERMINATE, ID), Terminate(id=ID)),
    ],
)
def test_commands_without_headers_of_their_own_ignore_those_of_others(
    target: Target, command: Inspect | Terminate
) -> None:
    head = head_of("X", ("Upload-Offset", "x"), ("Content-Length", "x"), ("Upload-Metadata", ",,"))
    assert ALL.read(head, target) == command


@pytest.mark.parametrize("target", [Target(Operation.CAPABILITIES, None), Target(Operation.DOWNLOAD, ID)])
def test_not_every_operation_has_a_command(target: Target) -> None:
    with pytest.raises(AssertionError, match="no command"):
        ALL.read(head_of("GET"), target)


def test_a_download_needs_no_version_because_browsers_send_none() -> None:
    codec = Tus1(extensions=frozenset(), max_size=1, downloads=True)
    assert codec.route(Head.of("GET", []), ID) == Target(Operation.DOWNLOAD, ID)
    assert isinstance(codec.route(Head.of("GET", []), ".."), Refused)
