"""The table of answers, and what every refusal has in common."""

import json

import pytest

from tests.protocol.samples import ALL, ID, fields_of
from tusserve.protocol.outcomes import Code, Refused, RefusedByHost
from tusserve.protocol.records import Refusal
from tusserve.protocol.tus1 import ANSWERS, Operation

STATUSES = {
    400: "invalid_header invalid_offset invalid_length invalid_metadata metadata_too_large "
    "invalid_content_length length_missing length_contradicted length_changed length_too_short "
    "length_deferral_unsupported concatenation_unsupported body_not_allowed first_chunk_too_short "
    "invalid_concatenation invalid_part part_unfinished "
    "invalid_checksum checksum_unsupported",
    403: "upload_complete upload_final",
    404: "upload_not_found upload_not_complete",
    405: "method_not_allowed",
    409: "offset_mismatch",
    410: "upload_terminated upload_expired upload_rejected upload_lost part_gone",
    412: "unsupported_version",
    413: "upload_too_large body_too_long",
    415: "unsupported_content_type",
    416: "range_not_satisfiable",
    422: "key_taken",
    423: "upload_locked upload_interrupted upload_finishing",
    460: "checksum_mismatch",
    503: "finishing_failed hook_failed storage_unavailable store_unavailable draining too_many_uploads "
    "internal_error",
    507: "storage_full",
}


def test_every_code_has_its_status() -> None:
    told = {code: status for status, codes in STATUSES.items() for code in codes.split()}
    assert told == {code.value: status for code, (status, _) in ANSWERS.items()}
    assert set(ANSWERS) == set(Code)


def test_every_code_has_a_sentence_of_its_own() -> None:
    sentences = [sentence for _, sentence in ANSWERS.values()]
    assert len(set(sentences)) == len(sentences)
    for sentence in sentences:
        assert sentence[0].isupper()
        assert sentence.endswith(".")
        assert sentence.isascii()
        assert len(sentence) <= 100


@pytest.mark.parametrize("code", Code)
@pytest.mark.parametrize("operation", [Operation.CREATE, Operation.APPEND, Operation.TERMINATE, None])
def test_a_refusal_is_a_problem_document(code: Code, operation: Operation | None) -> None:
    reply = ALL.render(Refused(code=code), operation, id=ID)
    status, sentence = ANSWERS[code]
    document = json.loads(reply.body)
    assert reply.status == document["status"] == status
    assert (document["code"], document["detail"]) == (code, sentence)
    fields = fields_of(reply)
    assert fields["content-type"] == "application/problem+json"
    assert fields["content-length"] == str(len(reply.body))


@pytest.mark.parametrize("code", Code)
def test_a_host_gets_the_same_to_say_in_its_own_words(code: Code) -> None:
    reply = ALL.render(Refused(code=code, offset=7), Operation.APPEND, id=ID)
    problem = reply.problem
    assert problem is not None
    assert (problem.status, problem.code, problem.upload_id) == (reply.status, code, ID)
    framing = {"content-type", "content-length"}
    assert dict(problem.headers) == {k: v for k, v in reply.headers if k not in framing}


@pytest.mark.parametrize("code", Code)
def test_what_is_refused_for_now_says_when_to_come_back(code: Code) -> None:
    plain = fields_of(ALL.render(Refused(code=code), Operation.APPEND, id=ID))
    assert ("retry-after" in plain) is (ANSWERS[code][0] in (423, 503))
    told = fields_of(ALL.render(Refused(code=code, retry_after=77), Operation.APPEND, id=ID))
    assert told["retry-after"] == "77"


@pytest.mark.parametrize("code", Code)
def test_the_offset_is_told_where_it_is_known(code: Code) -> None:
    assert "upload-offset" not in fields_of(ALL.render(Refused(code=code), Operation.APPEND, id=ID))
    told = fields_of(ALL.render(Refused(code=code, offset=0), Operation.APPEND, id=ID))
    assert told["upload-offset"] == "0"


def test_a_message_takes_the_place_of_the_sentence() -> None:
    refused = Refused(code=Code.LENGTH_TOO_SHORT, message="At least 64 bytes.")
    document = json.loads(ALL.render(refused, Operation.CREATE).body)
    assert (document["code"], document["detail"]) == ("length_too_short", "At least 64 bytes.")


@pytest.mark.parametrize("operation", [Operation.CREATE, Operation.APPEND, Operation.DOWNLOAD])
def test_a_hook_refuses_in_its_own_words(operation: Operation) -> None:
    refused = RefusedByHost(
        refusal=Refusal(401, "who_are_you", "Log in first."),
        headers={
            "WWW-Authenticate": "Bearer",
            "Content-Type": "text/html",
            "content-length": "3",
            "Cache-Control": "max-age=9",
            "Tus-Resumable": "9",
        },
        extra={"login": "/login", "status": 200},
    )
    reply = ALL.render(refused, operation, id=ID)
    fields = fields_of(reply)
    assert reply.status == 401
    assert fields["www-authenticate"] == "Bearer"
    assert fields["content-type"] == "application/problem+json"
    assert fields["content-length"] == str(len(reply.body))
    assert fields["cache-control"] == "no-store"
    assert fields["tus-resumable"] == "1.0.0"
    document = json.loads(reply.body)
    assert (document["login"], document["status"]) == ("/login", 401)
    assert reply.problem is not None
    assert reply.problem.extra == refused.extra


def test_a_hook_may_say_itself_when_to_come_back() -> None:
    later = RefusedByHost(refusal=Refusal(503, "later", "Later."), headers={"Retry-After": "3600"})
    assert fields_of(ALL.render(later, Operation.APPEND))["retry-after"] == "3600"
    assert fields_of(ALL.render(later, Operation.INSPECT))["retry-after"] == "3600"
    slower = RefusedByHost(refusal=Refusal(429, "slower", "Slower."), headers={"Retry-After": "9"})
    assert fields_of(ALL.render(slower, Operation.APPEND))["retry-after"] == "9"
