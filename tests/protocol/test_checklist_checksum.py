"""Checksums: the codec and the decisions, by the numbers of the checklist."""

from base64 import b64encode

import pytest

from tests.protocol.samples import (
    ALL,
    ID,
    NONE,
    OCTETS,
    POLICY,
    ask,
    fields_of,
    head_of,
    patch_of,
    record_in,
)
from tusserve.protocol.commands import Append, Create
from tusserve.protocol.decide import BodyEnd, plan_creation
from tusserve.protocol.digests import HASHES, Digest
from tusserve.protocol.outcomes import Code, Refused
from tusserve.protocol.records import UploadRecord, UploadState
from tusserve.protocol.tus1 import Operation, Target

KNOWN = record_in(UploadState.RECEIVING)
COMPLETE = record_in(UploadState.COMPLETE)
OF_123456789 = {
    "sha1": "f7c3bc1d808e04732adf679965ccc34ca7ae3441",
    "sha256": "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225",
    "sha512": "d9e6762dd1c8eaf6d61b3c6192fc408d4d6d5f1176d0c29169bc24e71c3f274a"
    "d27fcd5811b313d681f7e55ec02d73d499c95455b6b5bb503acf574fba8ffe85",
    "md5": "25f9e794323b453885f5181f1b624d0b",
    "crc32": "cbf43926",
}
"""What each algorithm is known to make of the digits from 1 to 9."""


def checksum(algorithm: str, digest: bytes) -> tuple[str, str]:
    return "Upload-Checksum", f"{algorithm} {b64encode(digest).decode()}"


def of(data: bytes) -> tuple[str, str]:
    running = HASHES["sha1"]()
    running.update(data)
    return checksum("sha1", running.digest())


def test_a62_the_algorithms_are_those_that_everybody_knows() -> None:
    assert list(HASHES) == list(OF_123456789)
    for name, digest in OF_123456789.items():
        running = HASHES[name]()
        running.update(b"1234")
        running.update(b"56789")
        assert running.digest().hex() == digest
        assert name == name.lower()
        assert name.isascii()


@pytest.mark.parametrize("name", HASHES)
def test_a62_each_is_read(name: str) -> None:
    digest = bytes.fromhex(OF_123456789[name])
    command = ALL.read(patch_of(40, 9, checksum(name, digest)), Target(Operation.APPEND, ID))
    assert isinstance(command, Append)
    assert command.digest == Digest(name, digest)


def test_a63_a_mismatch_is_460_and_the_offset_is_as_before() -> None:
    reply = ask(patch_of(40, 9, of(b"123456789")), KNOWN, end=BodyEnd.CORRUPT)
    assert reply.status == 460
    assert fields_of(reply)["upload-offset"] == "40"


@pytest.mark.parametrize("name", ["sha-1", "SHA1", "sha224", "", "crc32c", "md5,sha1"])
def test_a64_another_algorithm_is_400_before_the_upload_is_looked_at(name: str) -> None:
    for record in (KNOWN, None):
        reply = ask(patch_of(40, 1, checksum(name, bytes(20))), record)
        assert (reply.status, reply.problem and reply.problem.code) == (400, Code.CHECKSUM_UNSUPPORTED)
        assert fields_of(reply)["tus-checksum-algorithm"] == ",".join(HASHES)


@pytest.mark.parametrize(
    "told",
    [
        "sha1",
        "sha1 ",
        "sha1  98O8HYCOBHMq32eZZczDTKeuNEE=",
        "sha1 98O8HYCOBHMq32eZZczDTKeuNEE= ",
        "sha1 98O8HYCOBHMq32eZZczDTKeuNEE",
        "sha1 98O8HYCOBHMq32eZZczDTKeuNEE=, sha1 98O8HYCOBHMq32eZZczDTKeuNEE=",
        "sha1 f7c3bc1d808e04732adf679965ccc34ca7ae3441",
        "sha1 \u00fc",
        "sha256 98O8HYCOBHMq32eZZczDTKeuNEE=",
        "crc32 AAAA",
        "md5 ====",
    ],
)
def test_a65_what_is_no_digest_is_400(told: str) -> None:
    reply = ask(patch_of(40, 1, ("Upload-Checksum", told)), KNOWN)
    assert (reply.status, reply.problem and reply.problem.code) == (400, Code.INVALID_CHECKSUM)


def test_a65_two_of_them_are_none() -> None:
    reply = ask(patch_of(40, 1, of(b"a"), of(b"b")), KNOWN)
    assert reply.status == 400


def test_a66_a_match_is_204() -> None:
    assert ask(patch_of(40, 9, of(b"123456789")), KNOWN, kept=49).status == 204


def test_a64_where_it_is_off_a_checksum_is_refused_not_ignored() -> None:
    reply = ask(patch_of(40, 9, of(b"123456789")), KNOWN, codec=NONE)
    assert (reply.status, reply.problem and reply.problem.code) == (400, Code.CHECKSUM_UNSUPPORTED)
    assert "tus-checksum-algorithm" not in fields_of(reply)


@pytest.mark.parametrize("record", [KNOWN, COMPLETE])
def test_a_body_of_nothing_has_a_digest_too(record: UploadRecord) -> None:
    assert ask(patch_of(record.offset, 0, of(b"")), record).status == 204
    wrong = ask(patch_of(record.offset, 0, of(b"x")), record)
    assert (wrong.status, fields_of(wrong)["upload-offset"]) == (460, str(record.offset))


def test_a_complete_upload_takes_no_bytes_whatever_their_digest() -> None:
    assert ask(patch_of(100, None, of(b"x")), COMPLETE).status == 403


@pytest.mark.parametrize(
    ("fields", "length", "status"),
    [
        ((OCTETS, ("Content-Length", "9"), of(b"123456789")), "20", None),
        ((OCTETS, ("Transfer-Encoding", "chunked"), of(b"123456789")), "20", None),
        ((of(b""),), "20", None),
        ((of(b"x"),), "20", Code.CHECKSUM_MISMATCH),
        ((OCTETS, ("Transfer-Encoding", "chunked"), of(b"x")), "0", Code.CHECKSUM_MISMATCH),
    ],
)
def test_a69_a_creation_may_have_one(
    fields: tuple[tuple[str, str], ...], length: str, status: Code | None
) -> None:
    command = ALL.read(head_of("POST", ("Upload-Length", length), *fields), Target(Operation.CREATE, None))
    assert isinstance(command, Create)
    assert command.digest is not None
    refused = plan_creation(command, POLICY)
    assert (None if refused is None else refused.code) == status


@pytest.mark.parametrize("told", ["sha224 AAAA", "sha1 AAAA"])
def test_a69_what_is_wrong_with_it_is_wrong_there_too(told: str) -> None:
    head = head_of("POST", ("Upload-Length", "9"), OCTETS, ("Content-Length", "9"), ("Upload-Checksum", told))
    assert isinstance(ALL.read(head, Target(Operation.CREATE, None)), Refused)
