"""TUS 1.0.0, creation: the lines of the conformance checklist that need no I/O.

The number in the name of a test is that of its line.
"""

import base64

import pytest

from tests.protocol.samples import (
    ALL,
    ID,
    MAX_SIZE,
    NONE,
    OCTETS,
    ask,
    code_of,
    fields_of,
    head_of,
    opened,
    record_in,
)
from tusserve.protocol.commands import Create
from tusserve.protocol.http import Head, Reply
from tusserve.protocol.outcomes import Code, Created, Refused, RefusedByHost
from tusserve.protocol.records import Refusal, UploadState
from tusserve.protocol.tus1 import EXTENSIONS, Operation, Target, Tus1

PLAIN = Tus1(extensions=frozenset({"creation"}), max_size=MAX_SIZE)

LENGTH = ("Upload-Length", "100")
DEFERRED = ("Upload-Defer-Length", "1")
CHUNKED = ("Transfer-Encoding", "chunked")


def post(*fields: tuple[str, str], codec: Tus1 = ALL, kept: int | None = None) -> Reply:
    return ask(head_of("POST", *fields), id=None, codec=codec, kept=kept)


def create_of(head: Head) -> Create:
    command = ALL.read(head, Target(Operation.CREATE, None))
    assert isinstance(command, Create)
    return command


def test_a38_creation_is_announced_where_post_works() -> None:
    assert "creation" in fields_of(PLAIN.capabilities())["tus-extension"].split(",")
    assert post(LENGTH, codec=PLAIN).status == 201
    assert post(LENGTH, codec=NONE).status == 405


@pytest.mark.parametrize("codec", [ALL, PLAIN])
def test_a39_without_a_length_it_is_400(codec: Tus1) -> None:
    reply = post(codec=codec)
    assert (reply.status, code_of(reply)) == (400, "length_missing")


def test_a39_a_length_that_is_deferred_and_told_is_400() -> None:
    reply = post(LENGTH, DEFERRED)
    assert (reply.status, code_of(reply)) == (400, "length_contradicted")


@pytest.mark.parametrize("value", ["", "0", "2", "-1", "01", "true", "1 ", "1,1", "1, 1", "\xb9"])
def test_a40_only_1_defers_a_length(value: str) -> None:
    reply = post(("Upload-Defer-Length", value))
    assert (reply.status, code_of(reply)) == (400, "invalid_header")


@pytest.mark.parametrize("fields", [(LENGTH,), (DEFERRED,)])
def test_a41_success_is_201_with_the_place(fields: tuple[tuple[str, str], ...]) -> None:
    reply = post(*fields)
    assert reply.status == 201
    assert fields_of(reply)["location"] == f"/files/{ID}"
    assert fields_of(reply)["content-length"] == "0"


def test_a41_a_new_upload_is_at_0() -> None:
    record = opened(create_of(head_of("POST", LENGTH)))
    told = fields_of(ask(head_of("HEAD"), record))
    assert (told["upload-offset"], told["upload-length"]) == ("0", "100")


@pytest.mark.parametrize("length", [MAX_SIZE + 1, 2**63 - 1])
def test_a42_more_than_is_allowed_is_413(length: int) -> None:
    reply = post(("Upload-Length", str(length)))
    assert (reply.status, code_of(reply)) == (413, "upload_too_large")
    assert "location" not in fields_of(reply)
    assert post(("Upload-Length", str(MAX_SIZE))).status == 201


def test_a43_an_empty_upload_is_finished_without_a_patch() -> None:
    record = opened(create_of(head_of("POST", ("Upload-Length", "0"))))
    assert record.state is UploadState.FINISHING
    complete = record_in(UploadState.COMPLETE, length=0)
    told = fields_of(ask(head_of("HEAD"), complete))
    assert (told["upload-offset"], told["upload-length"]) == ("0", "0")


@pytest.mark.parametrize("metadata", ["a,a", ",", "a  Yg==", "a Yg", "a\x00", "a\r\nb", "\xe9 Yg==", "a b c"])
def test_a44_malformed_metadata_is_400(metadata: str) -> None:
    reply = post(LENGTH, ("Upload-Metadata", metadata))
    assert (reply.status, code_of(reply)) == (400, "invalid_metadata")


@pytest.mark.parametrize("metadata", ["a", "a ", "a Yg==", "a Yg==,b", "a Yg==,b "])
def test_a44_well_formed_metadata_is_kept_as_it_is(metadata: str) -> None:
    assert create_of(head_of("POST", LENGTH, ("Upload-Metadata", metadata))).metadata == metadata


def test_a44_metadata_in_several_headers_is_one_list() -> None:
    head = head_of("POST", LENGTH, ("Upload-Metadata", "a Yg=="), ("Upload-Metadata", "b"))
    assert create_of(head).metadata == "a Yg==, b"
    twice = [("Upload-Metadata", "a Yg==")] * 2
    assert code_of(post(LENGTH, *twice)) == "invalid_metadata"


@pytest.mark.parametrize("value", [b"a\r\nSet-Cookie: b", b"\x00", b"../../etc/passwd", b"\xff\xfe", b"a/b"])
def test_a45_what_metadata_says_can_only_come_back_in_base64(value: bytes) -> None:
    raw = "name " + base64.b64encode(value).decode()
    record = opened(create_of(head_of("POST", LENGTH, ("Upload-Metadata", raw))))
    for reply in (ask(head_of("HEAD"), record), post(LENGTH, ("Upload-Metadata", raw))):
        told = b"".join(f"{name}: {text}".encode("latin-1") for name, text in reply.headers)
        assert value not in told + reply.body


def test_a45_metadata_has_a_limit() -> None:
    reply = post(LENGTH, ("Upload-Metadata", "a" * 8193))
    assert (reply.status, code_of(reply)) == (400, "metadata_too_large")
    assert post(LENGTH, ("Upload-Metadata", "a" * 8192)).status == 201


def test_a46_a_hook_may_refuse_with_a_status_and_words_of_its_own() -> None:
    refused = RefusedByHost(
        refusal=Refusal(415, "not_a_film", "Only films."),
        headers={"X-Reason": "taste"},
        extra={"accepted": ["video/mp4"]},
    )
    reply = ALL.render(refused, Operation.CREATE, location="/files/x")
    assert (reply.status, code_of(reply)) == (415, "not_a_film")
    assert fields_of(reply)["x-reason"] == "taste"
    assert "location" not in fields_of(reply)
    assert b'"accepted":["video/mp4"]' in reply.body


@pytest.mark.parametrize("value", ["", " ", "\t"])
def test_a47_an_empty_metadata_header_is_none(value: str) -> None:
    assert create_of(head_of("POST", LENGTH, ("Upload-Metadata", value))).metadata is None


@pytest.mark.parametrize("fields", [[DEFERRED], [DEFERRED, LENGTH], [("Upload-Defer-Length", "x")]])
def test_a49_deferral_that_is_not_announced_is_400(fields: list[tuple[str, str]]) -> None:
    assert "creation-defer-length" not in fields_of(PLAIN.capabilities())["tus-extension"]
    reply = post(*fields, codec=PLAIN)
    assert (reply.status, code_of(reply)) == (400, "length_deferral_unsupported")


def test_a49_deferral_that_is_announced_works() -> None:
    assert "creation-defer-length" in fields_of(ALL.capabilities())["tus-extension"]
    assert create_of(head_of("POST", DEFERRED)).length is None


@pytest.mark.parametrize("value", ["partial", "final;/files/a /files/b", "", "nonsense"])
def test_concatenation_that_is_not_announced_is_400(value: str) -> None:
    head = head_of("POST", LENGTH, ("Upload-Concat", value))
    bare = Tus1(extensions=frozenset({"creation"}), max_size=MAX_SIZE)
    reply = ask(head, id=None, codec=bare)
    assert (reply.status, code_of(reply)) == (400, "concatenation_unsupported")


# ---- creation with upload


def test_a51_creation_with_upload_needs_creation() -> None:
    with pytest.raises(ValueError, match="need creation"):
        Tus1(extensions=frozenset(EXTENSIONS) - {"creation"}, max_size=1)


@pytest.mark.parametrize(("kept", "offset"), [(None, "0"), (40, "40")])
def test_a52_the_answer_tells_what_was_kept_of_the_body(kept: int | None, offset: str) -> None:
    reply = post(LENGTH, OCTETS, ("Content-Length", "50"), kept=kept)
    assert reply.status == 201
    assert fields_of(reply)["upload-offset"] == offset


def test_a52_no_offset_is_told_where_a_body_is_not_taken() -> None:
    assert "upload-offset" not in fields_of(post(LENGTH, codec=PLAIN))


@pytest.mark.parametrize("framing", [("Content-Length", "5"), CHUNKED])
@pytest.mark.parametrize("codec", [ALL, PLAIN])
def test_a52_a_body_of_another_type_is_415(framing: tuple[str, str], codec: Tus1) -> None:
    for types in ([], [("Content-Type", "application/json")], [OCTETS, OCTETS]):
        reply = post(LENGTH, framing, *types, codec=codec)
        assert (reply.status, code_of(reply)) == (415, "unsupported_content_type")


def test_a52_a_body_where_none_is_taken_is_400() -> None:
    reply = post(LENGTH, OCTETS, ("Content-Length", "5"), codec=PLAIN)
    assert (reply.status, code_of(reply)) == (400, "body_not_allowed")


@pytest.mark.parametrize(
    "head",
    [
        head_of("POST", LENGTH),
        head_of("POST", LENGTH, ("Content-Length", "0")),
        head_of("POST", LENGTH, ("Content-Length", "0"), ("Content-Type", "text/plain")),
        head_of("POST", LENGTH, ("Content-Length", "0"), OCTETS),
        head_of("POST", LENGTH, http_version="2"),
    ],
)
def test_a52_without_a_body_the_type_makes_no_difference(head: Head) -> None:
    assert create_of(head) == Create(length=100)


@pytest.mark.parametrize(
    ("head", "content_length"),
    [
        (head_of("POST", LENGTH, OCTETS, ("Content-Length", "7")), 7),
        (head_of("POST", LENGTH, OCTETS, CHUNKED), None),
        (head_of("POST", LENGTH, OCTETS, http_version="2"), None),
    ],
)
def test_a52_a_body_is_told_from_its_length_or_else_its_type(head: Head, content_length: int | None) -> None:
    assert create_of(head) == Create(length=100, carries_body=True, content_length=content_length)


@pytest.mark.parametrize("value", ["", "-1", "5,5", str(2**63)])
def test_a52_a_length_of_the_body_that_is_no_number_is_400(value: str) -> None:
    reply = post(LENGTH, OCTETS, ("Content-Length", value))
    assert (reply.status, code_of(reply)) == (400, "invalid_content_length")


def test_a53_a_body_with_more_than_the_upload_is_413_and_nothing_is_created() -> None:
    reply = post(LENGTH, OCTETS, ("Content-Length", "101"))
    assert (reply.status, code_of(reply)) == (413, "body_too_long")
    assert "location" not in fields_of(reply)
    assert post(DEFERRED, OCTETS, ("Content-Length", str(MAX_SIZE + 1))).status == 413


def test_a54_whether_a_client_waits_is_known_before_its_body_is_asked_for() -> None:
    head = head_of("POST", ("Expect", "100-continue"), OCTETS, ("Content-Length", "9"))
    assert head.expects_continue
    assert ask(head, id=None).status == 400


def test_a55_a_body_that_is_the_whole_file_is_201_all_the_same() -> None:
    reply = ALL.render(
        Created(record=record_in(UploadState.COMPLETE)), Operation.CREATE, location=f"/files/{ID}"
    )
    assert reply.status == 201
    assert fields_of(reply)["upload-offset"] == "100"
    assert "upload-expires" not in fields_of(reply)


def test_a55_while_it_finishes_less_is_claimed_than_is_there() -> None:
    record = record_in(UploadState.FINISHING)
    fields = fields_of(ALL.render(Created(record=record), Operation.CREATE, location=f"/files/{ID}"))
    assert fields["upload-offset"] == "0"


# ---- what a hook adds


def test_a_hook_may_add_headers_and_a_body_but_not_change_the_protocols() -> None:
    created = Created(
        record=record_in(UploadState.RECEIVING),
        headers={
            "X-Asset": "7",
            "Content-Type": "application/json",
            "Content-Length": "1",
            "Transfer-Encoding": "chunked",
            "LOCATION": "https://elsewhere.example",
            "Upload-Offset": "99",
        },
        body=b'{"id":7}',
    )
    reply = ALL.render(created, Operation.CREATE, location=f"/files/{ID}")
    fields = fields_of(reply)
    assert reply.body == b'{"id":7}'
    assert fields["content-length"] == "8"
    assert fields["content-type"] == "application/json"
    assert fields["x-asset"] == "7"
    assert fields["location"] == f"/files/{ID}"
    assert fields["upload-offset"] == "40"
    assert "transfer-encoding" not in fields


def test_an_upload_that_was_created_is_somewhere() -> None:
    with pytest.raises(AssertionError, match="location"):
        ALL.render(Created(record=record_in(UploadState.RECEIVING)), Operation.CREATE)


def test_a_refusal_of_a_creation_names_no_upload() -> None:
    reply = ALL.render(Refused(code=Code.DRAINING), Operation.CREATE)
    assert reply.problem is not None
    assert reply.problem.upload_id is None
