"""Records as they are stored: what goes in comes out, today's bodies and yesterday's."""

import json
from dataclasses import fields
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.protocol.samples import NOW, record_in
from tusserve.protocol.records import (
    BODY_VERSION,
    Kind,
    Reason,
    Refusal,
    UploadRecord,
    UploadState,
    from_micros,
    to_micros,
)

COLUMNS = ("id", "name", "owner", "state", "created_at", "due_at", "revision")

moments = st.datetimes(
    min_value=datetime(1970, 1, 1),  # noqa: DTZ001 - hypothesis adds the zone
    timezones=st.just(UTC),
)
sizes = st.integers(0, 2**63 - 1)
# Any text, lone surrogates too: no hook and no header may make a record that cannot be stored.
words = st.text(st.characters(exclude_categories=()))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=8,
)
records = st.builds(
    UploadRecord,
    id=words,
    name=words,
    owner=st.none() | words,
    state=st.sampled_from(UploadState),
    created_at=moments,
    due_at=st.none() | moments,
    revision=sizes,
    kind=st.sampled_from(Kind),
    length=st.none() | sizes,
    offset=sizes,
    max_size=sizes,
    metadata=st.none() | words,
    attributes=st.dictionaries(words, json_values, max_size=4),
    key=st.none() | words,
    content_type=st.none() | words,
    expires_at=st.none() | moments,
    completed_at=st.none() | moments,
    gated=st.booleans(),
    attempts=st.integers(0, 2**31),
    reason=st.none() | st.sampled_from(Reason),
    refusal=st.none() | st.builds(Refusal, st.integers(400, 499), words, words),
    cursor=words,
    entries=sizes,
    parts=st.lists(words, max_size=3).map(tuple),
)


def load(body: bytes, record: UploadRecord) -> UploadRecord:
    return UploadRecord.load(
        body,
        id=record.id,
        name=record.name,
        owner=record.owner,
        state=record.state.value,
        created_at=record.created_at,
        due_at=record.due_at,
        revision=record.revision,
    )


@given(records)
@settings(deadline=None)
def test_a_record_comes_back_as_it_was(record: UploadRecord) -> None:
    body = record.dump()
    loaded = load(body, record)
    assert loaded == record
    for field in fields(UploadRecord):
        assert type(getattr(loaded, field.name)) is type(getattr(record, field.name)), field.name
    assert body.isascii(), "a store may keep it as text in any encoding"


def test_the_body_has_everything_but_the_columns() -> None:
    body = json.loads(record_in(UploadState.RECEIVING).dump())
    assert set(body) == {field.name for field in fields(UploadRecord)} - set(COLUMNS) | {"v"}


def test_a_body_of_a_newer_version_is_refused() -> None:
    record = record_in(UploadState.RECEIVING)
    body = json.loads(record.dump())
    body["v"] = BODY_VERSION + 1
    with pytest.raises(ValueError, match=f"{record.id}.*version {BODY_VERSION + 1}"):
        load(json.dumps(body).encode(), record)


def test_a_body_of_version_1_can_be_read_for_ever() -> None:
    body = (
        b'{"v":1,"kind":"PARTIAL","length":100,"offset":40,"max_size":1000,"metadata":"a Yg==",'
        b'"attributes":{"project":7},"key":"k","content_type":"video/mp4","expires_at":1772600767890123,'
        b'"completed_at":null,"gated":true,"attempts":2,"reason":"REJECTED",'
        b'"refusal":[415,"not_a_film","Only films."],"cursor":"c","entries":3,"parts":["x","y"]}'
    )
    columns = record_in(UploadState.ENDING)
    assert load(body, columns) == UploadRecord(
        id=columns.id,
        name=columns.name,
        owner=columns.owner,
        state=UploadState.ENDING,
        created_at=columns.created_at,
        due_at=columns.due_at,
        kind=Kind.PARTIAL,
        length=100,
        offset=40,
        max_size=1000,
        metadata="a Yg==",
        attributes={"project": 7},
        key="k",
        content_type="video/mp4",
        expires_at=NOW,
        gated=True,
        attempts=2,
        reason=Reason.REJECTED,
        refusal=Refusal(415, "not_a_film", "Only films."),
        cursor="c",
        entries=3,
        parts=("x", "y"),
    )


@given(moments)
@settings(deadline=None)
def test_moments_are_kept_to_the_microsecond(moment: datetime) -> None:
    assert from_micros(to_micros(moment)) == moment
    elsewhere = moment.replace(year=2024).astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert from_micros(to_micros(elsewhere)) == elsewhere


def test_no_moment_is_none() -> None:
    assert from_micros(None) is None
