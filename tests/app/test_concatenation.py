"""Uploads that are made of others: partial uploads, final ones, and all that can become of both."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import timedelta

import pytest

from tests.app.stage import (
    NotingStorage,
    NotingStore,
    Stage,
    assert_head_refused,
    assert_refused,
    code,
    id_of,
    stage,
    until,
)
from tusserve import Accepted, ConfigError, Expiry, Rejected, Timeouts, TusApp, Upload, UploadState
from tusserve.contracts import Part, Place
from tusserve.errors import StorageFull, StorageUnavailable
from tusserve.protocol.parts import final_id
from tusserve.protocol.records import Kind, Reason
from tusserve.testing.client import Response
from tusserve.upload import NewUpload

pytestmark = pytest.mark.anyio

PARTIAL = {"Upload-Concat": "partial"}
SOON = Timeouts(finish_wait=timedelta(milliseconds=50))


def final_of(*urls: str, **more: str) -> dict[str, str | None]:
    named = {name.replace("_", "-"): value for name, value in more.items()}
    return {"Upload-Concat": "final;" + " ".join(urls), **named}


async def part(s: Stage, data: bytes, headers: Mapping[str, str] | None = None) -> str:
    return await s.whole(data, headers={**PARTIAL, **(headers or {})})


async def begun(s: Stage, length: int = 3) -> str:
    return await s.client.create("/files", length=length, headers=PARTIAL)


async def join(s: Stage, *urls: str, headers: Mapping[str, str] | None = None) -> Response:
    return await s.client.request("POST", "/files", headers={**final_of(*urls), **(headers or {})})


async def joined(s: Stage, *urls: str) -> str:
    answer = await join(s, *urls)
    assert answer.status == 201, answer
    assert "upload-offset" not in answer.headers
    return answer.headers["location"]


# ---- what works


async def test_a75_a_final_has_the_bytes_of_its_parts_in_their_order() -> None:
    async with stage() as s:
        a, b = await part(s, b"hello "), await part(s, b"world")
        url = await joined(s, b, a, b)
        assert await s.content(url) == b"worldhello world"
        seen = await s.client.head(url)
        assert (seen.status, seen.headers["upload-offset"], seen.headers["upload-length"]) == (
            200,
            "16",
            "16",
        )
        assert seen.headers["upload-concat"] == f"final;{b} {a} {b}"
        other = await joined(s, a, a)
        assert await s.content(other) == b"hello hello ", "a part may be used in several finals"


async def test_a74_a_partial_is_told_as_one() -> None:
    async with stage() as s:
        url = await begun(s)
        seen = await s.client.head(url)
        assert (seen.headers["upload-concat"], seen.headers["upload-offset"]) == ("partial", "0")
        assert (await s.client.append(url, b"abc")).status == 204
        seen = await s.client.head(url)
        assert (seen.headers["upload-concat"], seen.headers["upload-offset"]) == ("partial", "3")


async def test_a_final_depends_on_no_part() -> None:
    async with stage() as s:
        a, b = await part(s, b"ab"), await part(s, b"cd")
        url = await joined(s, a, b)
        for each in (a, b):
            assert (await s.client.delete(each)).status == 204
        assert await s.content(url) == b"abcd"
        assert (await s.client.delete(url)).status == 204
        assert s.storage.bytes == 0


async def test_a78_nothing_is_appended_to_a_final() -> None:
    async with stage() as s:
        url = await joined(s, await part(s, b"ab"))
        waiting = await joined(s, await begun(s))
        for each in (url, waiting):
            for at in (0, 2):
                assert_refused(await s.client.append(each, b"x", at=at), 403, "upload_final")
        assert await s.content(url) == b"ab"


async def test_a80_metadata_is_that_of_the_final() -> None:
    async with stage() as s:
        a = await part(s, b"ab", {"Upload-Metadata": "part YQ=="})
        answer = await join(s, a, headers={"Upload-Metadata": "film Yg=="})
        assert (await s.client.head(answer.headers["location"])).headers["upload-metadata"] == "film Yg=="
        assert "upload-metadata" not in (await s.client.head(await joined(s, a))).headers


async def test_parts_of_no_bytes_make_a_final_of_none() -> None:
    heads = []

    async def on_first_chunk(upload: Upload, head: bytes) -> None:
        heads.append((upload.kind, head))

    async with stage(on_first_chunk=on_first_chunk) as s:
        empty = await s.client.create("/files", length=0, headers=PARTIAL)
        url = await joined(s, empty, empty)
        assert await s.content(url) == b""
        assert heads == [(Kind.FINAL, b"")]


async def test_a_thousand_parts_and_not_one_more() -> None:
    async with stage() as s:
        parts = [await part(s, bytes([number % 251])) for number in range(100)]
        url = await joined(s, *(parts * 10))
        assert await s.content(url) == bytes(number % 251 for number in range(100)) * 10
        assert_refused(await join(s, *(parts * 10), parts[0]), 400, "invalid_concatenation")


@pytest.mark.parametrize("form", ["http://other.test{}", "HTTPS://a:1{}", "{}"])
async def test_a75_parts_are_named_by_path_or_url(form: str) -> None:
    async with stage() as s:
        url = await joined(s, form.format(await part(s, b"ab")), form.format(await part(s, b"c")))
        assert await s.content(url) == b"abc"


async def test_a75_parts_below_a_base_url() -> None:
    async with stage(base_url="https://uploads.test/some/where") as s:
        answer = await s.client.request("POST", "/files", headers={**PARTIAL, "Upload-Length": "0"})
        location = answer.headers["location"]
        assert location.startswith("https://uploads.test/some/where/files/")
        assert (await join(s, location)).status == 201


# ---- what is refused


@pytest.mark.parametrize(
    "odd",
    [
        "/files/ffffffffffffffffffffffffffffffff",
        "/elsewhere/{id}",
        "/files/x/../{id}",
        "/files/../files/{id}",
        "/files/%2e%2e/files/{id}",
        "/files%2f{id}",
        "/files/{id}?a=b",
        "/files/{id}#x",
        "/files/{id}/",
        "/files/",
        "/files",
        "//files/{id}",
        "{id}",
        "files/{id}",
        "http://a.test",
        "http:///files/{id}",
        "ftp://a.test/files/{id}",
        "\x01",
        "\xe9",
    ],
)
async def test_a81_what_names_no_part_is_refused(odd: str) -> None:
    async with stage() as s:
        good = await part(s, b"ab")
        answer = await join(s, good, odd.format(id=id_of(good)))
        assert_refused(answer, 400, "invalid_part")
        assert len(s.store.records) == 1


async def test_a81_only_partial_uploads_are_parts() -> None:
    async with stage() as s:
        a = await part(s, b"ab")
        whole, final = await s.whole(b"ab"), await joined(s, a)
        gone = await part(s, b"gone")
        await s.client.delete(gone)
        # A final cannot name itself: its id is made of the ids of its parts.
        itself = f"/files/{final_id('default', None, [id_of(a)], None)}"
        for each in (whole, final, gone, itself):
            assert_refused(await join(s, a, each), 400, "invalid_part")


async def test_a81_parts_of_others_are_none() -> None:
    async def authorize(request: object, action: object, upload: object) -> str:
        return request.headers["who"]  # type: ignore[attr-defined, no-any-return]

    async with stage(authorize=authorize) as s:
        mine = await part(s, b"ab", {"who": "ann"})
        answer = await join(s, mine, headers={"who": "bob"})
        assert_refused(answer, 400, "invalid_part")
        unknown = await join(s, "/files/unknown", headers={"who": "bob"})
        assert answer.json() == unknown.json(), "nobody learns whether it is there"
        assert (await join(s, mine, headers={"who": "ann"})).status == 201


async def test_a81_parts_of_another_app_are_none() -> None:
    storage, store = NotingStorage(), NotingStore()
    async with (
        stage(storage=storage, store=store) as one,
        stage(storage=storage, store=store, name="b") as two,
    ):
        assert_refused(await join(two, await part(one, b"ab")), 400, "invalid_part")


async def test_a81_a_part_that_expired_is_none() -> None:
    async with stage(expiry=Expiry(idle=timedelta(hours=1))) as s:
        url = await part(s, b"ab")
        s.clock.advance(timedelta(hours=2))
        assert_refused(await join(s, url), 400, "invalid_part")


async def test_a79_an_unfinished_part_needs_the_extension() -> None:
    async with stage(extensions=["creation", "concatenation"]) as s:
        url = await begun(s)
        assert_refused(await join(s, url), 400, "part_unfinished")
        assert len(s.store.records) == 1
        await s.client.append(url, b"abc")
        assert (await join(s, url)).status == 201


async def test_a82_the_sum_is_limited_before_anything_is_done() -> None:
    created = []

    async def on_create(new: NewUpload, request: object) -> None:
        created.append(new.kind)

    async with stage(max_size=5, on_create=on_create) as s:
        a, b = await part(s, b"abc"), await begun(s, 3)
        for parts in ((a, a), (a, b), (b, b)):
            assert_refused(await join(s, *parts), 413, "upload_too_large")
        assert created == [Kind.PARTIAL, Kind.PARTIAL]
        assert len(s.store.records) == 2


async def test_a82_a_smaller_limit_of_the_host_counts_too() -> None:
    async def on_create(new: NewUpload, request: object) -> Accepted:
        return Accepted(max_size=5)

    async with stage(on_create=on_create) as s:
        a = await part(s, b"abc")
        assert_refused(await join(s, a, a), 413, "upload_too_large")
        deferred = await s.client.create(
            "/files", length=None, headers={**PARTIAL, "Upload-Defer-Length": "1"}
        )
        url = await joined(s, a, deferred)
        assert "upload-length" not in (await s.client.head(url)).headers
        await s.client.append(deferred, b"def", headers={"Upload-Length": "3"})
        assert_head_refused(await s.client.head(url), 413)
        assert_head_refused(await s.client.head(url), 410)


async def test_a_final_is_as_long_as_a_first_chunk_has_to_be() -> None:
    async def on_first_chunk(upload: Upload, head: bytes) -> None:
        pass

    async with stage(on_first_chunk=on_first_chunk, min_first_chunk=4) as s:
        a = await part(s, b"ab")
        assert_refused(await join(s, a), 400, "length_too_short")
        assert (await join(s, a, a)).status == 201


# ---- hooks


async def test_a81_hooks_see_the_final_and_not_its_parts() -> None:
    calls: list[object] = []

    async def on_create(new: NewUpload, request: object) -> Accepted:
        calls.append(("create", new.kind, new.length))
        return Accepted(key="partial" if new.kind is Kind.PARTIAL else None, headers={"X-Kind": new.kind})

    async def on_first_chunk(upload: Upload, head: bytes) -> Accepted:
        calls.append(("first", upload.kind, head))
        return Accepted(key="film", content_type="video/mp4")

    async def on_complete(upload: Upload) -> None:
        async with upload.open() as pieces:
            calls.append(("last", upload.kind, b"".join([piece async for piece in pieces])))

    async with stage(
        on_create=on_create, on_first_chunk=on_first_chunk, on_complete=on_complete, sniff_size=4
    ) as s:
        a, b = await part(s, b"abc"), await part(s, b"def")
        assert s.store.records[id_of(a)].key is None, "a key is for what is made of the parts"
        answer = await join(s, a, b)
        assert answer.headers["x-kind"] == "FINAL"
        upload = await s.upload(answer.headers["location"])
        assert (upload.key, upload.content_type) == ("film", "video/mp4")
        assert calls == [
            ("create", Kind.PARTIAL, 3),
            ("create", Kind.PARTIAL, 3),
            ("create", Kind.FINAL, 6),
            ("first", Kind.FINAL, b"abcd"),
            ("last", Kind.FINAL, b"abcdef"),
        ]


async def test_a_key_is_committed_before_anything_is_put_under_it() -> None:
    async def on_first_chunk(upload: Upload, head: bytes) -> Accepted:
        return Accepted(key="film")

    kept: list[str | None] = []

    class Looking(NotingStorage):
        async def concatenate(self, place: Place, parts: Sequence[Part]) -> str:
            kept.append(store.records[place.id].key)
            return await super().concatenate(place, parts)

    store = NotingStore()
    async with stage(storage=Looking(), store=store, on_first_chunk=on_first_chunk) as s:
        a = await part(s, b"abc")
        await joined(s, a)
        assert kept == ["film"]
        assert_refused(await join(s, a), 422, "key_taken")


@pytest.mark.parametrize("hook", ["on_first_chunk", "on_complete"])
async def test_a_final_that_is_refused_for_good_has_that_status(hook: str) -> None:
    async def refuse(*_: object) -> None:
        raise Rejected(415, "no_film", "Only films.")

    async with stage(**{hook: refuse}) as s:  # type: ignore[arg-type]
        url = await part(s, b"abc")
        assert_refused(await join(s, url), 415, "no_film")
        assert s.storage.bytes == 3, "the part is there"
        assert_refused(await join(s, url), 415, "no_film")
        ended = [each for each in s.store.records.values() if each.kind is Kind.FINAL]
        assert [each.state for each in ended] == [UploadState.GONE] * 2
        assert ended[0].id != ended[1].id


async def test_a_final_that_is_refused_for_now_is_found_by_its_repetition() -> None:
    asked: list[str] = []

    async def on_first_chunk(upload: Upload, head: bytes) -> None:
        asked.append("first")

    async def on_complete(upload: Upload) -> None:
        asked.append("last")
        if asked.count("last") < 3:
            raise LookupError("not now")

    async with stage(on_first_chunk=on_first_chunk, on_complete=on_complete) as s:
        a, b = await part(s, b"abc"), await part(s, b"def")
        assert_refused(await join(s, a, b), 503, "hook_failed")
        assert_refused(await join(s, a, b), 503, "finishing_failed")  # it is not due yet
        for each in (a, b):
            await s.client.delete(each)  # it is joined: no part is needed any more
        s.clock.advance(timedelta(seconds=2))
        assert_refused(await join(s, a, b), 503, "hook_failed")
        s.clock.advance(timedelta(seconds=5))
        url = await joined(s, a, b)
        assert await s.content(url) == b"abcdef"
        assert asked == ["first", "last", "last", "last"]
        finals = [each for each in s.store.records.values() if each.kind is Kind.FINAL]
        assert len(finals) == 1


async def test_a_request_waits_for_the_hook_only_so_long() -> None:
    go_on = asyncio.Event()

    async def on_complete(upload: Upload) -> None:
        await go_on.wait()

    async with stage(on_complete=on_complete, timeouts=SOON) as s:
        a = await part(s, b"abc")
        assert_refused(await join(s, a), 503, "finishing_failed")
        assert_refused(await join(s, a), 503, "finishing_failed")
        go_on.set()
        record = next(each for each in s.store.records.values() if each.kind is Kind.FINAL)
        await until(lambda: s.store.records[record.id].state is UploadState.COMPLETE)
        assert await s.content(f"/files/{record.id}") == b"abc"


async def test_the_same_words_twice_make_two_finals() -> None:
    async with stage() as s:
        a = await part(s, b"abc")
        first, second = await joined(s, a), await joined(s, a)
        assert first != second
        await s.client.delete(first)
        third = await joined(s, a)
        assert len({first, second, third}) == 3
        assert await s.content(second) == await s.content(third) == b"abc"


async def test_bytes_whose_record_is_forgotten_are_not_met_again() -> None:
    async with stage(expiry=Expiry(finished=timedelta(hours=1))) as s:
        a = await part(s, b"abc")
        first = await joined(s, a)
        s.clock.advance(timedelta(hours=2))
        assert (await s.tus.sweep()).forgotten == 1
        assert await joined(s, a) != first


async def test_two_that_come_at_once_are_one_or_are_told_to_come_again() -> None:
    async with stage() as s:
        a = await part(s, b"abc")
        answers = await asyncio.gather(*(join(s, a) for _ in range(5)))
        assert {answer.status for answer in answers} <= {201, 503}
        assert 201 in {answer.status for answer in answers}


@pytest.mark.parametrize("error", [StorageFull("full"), StorageUnavailable("away")])
async def test_a_storage_that_fails_for_now(error: Exception) -> None:
    async with stage() as s:
        a = await part(s, b"abc")
        s.storage.at.coming["concatenate"] = [error]
        answer = await join(s, a)
        assert answer.status == (507 if isinstance(error, StorageFull) else 503)
        s.clock.advance(timedelta(seconds=5))
        assert (await s.tus.sweep()).completed == 1


# ---- waiting


async def test_a79_a_final_waits_for_its_parts() -> None:
    async with stage() as s:
        a, b = await part(s, b"abc"), await begun(s)
        answer = await join(s, a, b)
        assert answer.status == 201
        assert "upload-offset" not in answer.headers
        assert "upload-expires" in answer.headers
        url = answer.headers["location"]
        for _ in range(2):
            seen = await s.client.head(url)
            assert (seen.status, seen.headers["upload-length"]) == (200, "6")
            assert "upload-offset" not in seen.headers
        assert s.store.at.calls.count("acquire") == 1, "to look costs no lease"
        await s.client.append(b, b"def")
        seen = await s.client.head(url)
        assert (seen.status, seen.headers["upload-offset"]) == (200, "6")
        assert await s.content(url) == b"abcdef"


async def test_a79_the_same_request_finds_what_waits() -> None:
    async with stage() as s:
        a = await begun(s)
        url = await joined(s, a)
        assert await joined(s, a) == url
        await s.client.append(a, b"abc")
        assert await joined(s, a) == url
        assert await s.content(url) == b"abc"


async def test_a79_the_sweep_looks_at_what_waits() -> None:
    async with stage() as s:
        a = await begun(s)
        url = await joined(s, a)
        assert not await s.tus.sweep()
        pauses = []
        for _ in range(6):
            due = s.store.records[id_of(url)].due_at
            assert due is not None
            pauses.append(due - s.clock())
            s.clock.advance(due - s.clock())
            assert (await s.tus.sweep()).retried == 1
        assert pauses == [timedelta(minutes=minutes) for minutes in (1, 2, 4, 8, 15, 15)]
        await s.client.append(a, b"abc")
        s.clock.advance(timedelta(minutes=15))
        assert (await s.tus.sweep()).completed == 1
        assert await s.content(url) == b"abc"


async def test_a77_head_waits_for_the_assembly_and_then_says_so() -> None:
    go_on = asyncio.Event()

    async def on_complete(upload: Upload) -> None:
        await go_on.wait()

    async with stage(on_complete=on_complete, timeouts=SOON) as s:
        a = await begun(s)
        url = await joined(s, a)
        await s.client.append(a, b"abc")
        assert_head_refused(await s.client.head(url), 423)
        assert_refused(await s.client.delete(url), 423, "upload_finishing")
        go_on.set()
        await until(lambda: s.store.records[id_of(url)].state is UploadState.COMPLETE)
        assert await s.client.offset(url) == 3


@pytest.mark.parametrize("by", ["head", "sweep"])
@pytest.mark.parametrize("death", ["delete", "expiry"])
async def test_a_part_that_dies_ends_what_waits_for_it(death: str, by: str) -> None:
    ends = []

    async def on_terminate(upload: Upload, reason: Reason) -> None:
        ends.append((upload.kind, reason))

    async with stage(on_terminate=on_terminate, expiry=Expiry(idle=timedelta(hours=1))) as s:
        a, b = await part(s, b"abc"), await begun(s)
        url = await joined(s, a, b)
        if death == "delete":
            await s.client.delete(a)
            s.clock.advance(timedelta(minutes=1))
        else:
            s.clock.advance(timedelta(hours=2))
        if by == "sweep":
            await s.tus.sweep()
        else:
            assert_head_refused(await s.client.head(url), 410)
        record = s.store.records[id_of(url)]
        assert (record.state, record.reason) == (UploadState.GONE, Reason.REJECTED)
        assert (Kind.FINAL, Reason.REJECTED) in ends
        answer = await s.client.append(url, b"x")
        assert_refused(answer, 410, "part_gone")


async def test_a_part_that_dies_while_the_final_is_finished() -> None:
    async with stage() as s:
        a = await part(s, b"abc")
        s.storage.at.coming["concatenate"] = [StorageUnavailable("away")]
        assert_refused(await join(s, a), 503, "storage_unavailable")
        await s.client.delete(a)
        s.clock.advance(timedelta(seconds=5))
        answer = await join(s, a)
        assert_refused(answer, 410, "part_gone")
        assert_refused(await join(s, a), 400, "invalid_part")


async def test_bytes_of_a_part_that_are_lost_end_the_final() -> None:
    async with stage() as s:
        a = await part(s, b"abc")
        s.storage.lose(id_of(a))
        assert_refused(await join(s, a), 410, "upload_lost")


async def test_what_waits_can_be_ended_and_expires() -> None:
    async with stage(expiry=Expiry(initial=timedelta(hours=1))) as s:
        a = await begun(s)
        url = await joined(s, a)
        assert (await s.client.delete(url)).status == 204
        assert_head_refused(await s.client.head(url), 410)
        other = await joined(s, a)
        assert other != url
        s.clock.advance(timedelta(minutes=59))
        await s.client.append(a, b"a")  # the part goes on, what waits for it does not
        s.clock.advance(timedelta(minutes=2))
        assert_head_refused(await s.client.head(other), 410)
        assert (await s.tus.sweep()).expired == 1
        assert s.store.records[id_of(other)].reason is Reason.EXPIRED
        assert await joined(s, a) not in {url, other}


async def test_a_process_without_hooks_leaves_what_waits_alone() -> None:
    storage, store = NotingStorage(), NotingStore()

    async def on_complete(upload: Upload) -> None:
        pass

    async with stage(storage=storage, store=store, on_complete=on_complete) as s:
        a = await begun(s)
        url = await joined(s, a)
        await s.client.append(a, b"abc")
        async with stage(storage=storage, store=store, clock=s.clock) as bare:
            seen = await bare.client.head(url)
            assert seen.status == 200
            assert "upload-offset" not in seen.headers
            s.clock.advance(timedelta(minutes=2))
            assert (await bare.tus.sweep()).skipped == 1
        assert await s.client.offset(url) == 3


# ---- partial uploads


async def test_a_complete_part_expires_and_says_when() -> None:
    async with stage(expiry=Expiry(idle=timedelta(hours=1), finished=timedelta(minutes=1))) as s:
        url = await part(s, b"abc")
        assert "upload-expires" in (await s.client.head(url)).headers
        s.clock.advance(timedelta(minutes=59))
        assert not await s.tus.sweep(), "it is of use until then"
        assert await s.client.offset(url) == 3
        s.clock.advance(timedelta(minutes=1))
        assert_head_refused(await s.client.head(url), 410)
        assert (await s.tus.sweep()).expired == 1
        assert s.storage.bytes == 0


async def test_a_complete_part_stays_where_nothing_expires() -> None:
    async with stage(expiry=None) as s:
        url = await part(s, b"abc")
        assert "upload-expires" not in (await s.client.head(url)).headers
        s.clock.advance(timedelta(days=999))
        assert not await s.tus.sweep()
        assert await s.content(await joined(s, url)) == b"abc"


# ---- what is announced


class CannotJoin(NotingStorage):
    concatenate = None  # type: ignore[assignment]


async def test_a_storage_that_cannot_join_is_not_asked_to() -> None:
    storage = CannotJoin()
    async with stage(storage=storage) as s:
        assert "concatenation" not in (await s.client.options("/files")).headers["tus-extension"]
        answer = await s.client.request("POST", "/files", headers={**PARTIAL, "Upload-Length": "1"})
        assert_refused(answer, 400, "concatenation_unsupported")
    with pytest.raises(ConfigError, match="concatenate"):
        TusApp("/files", storage=storage, store=NotingStore(), extensions=["creation", "concatenation"])


async def test_what_needs_what() -> None:
    for extensions in (["concatenation"], ["creation", "concatenation-unfinished"]):
        with pytest.raises(ConfigError, match="needs"):
            TusApp("/files", storage=NotingStorage(), store=NotingStore(), extensions=extensions)  # type: ignore[arg-type]
    async with stage() as s:
        told = (await s.client.options("/files")).headers["tus-extension"].split(",")
        assert told[-2:] == ["concatenation", "concatenation-unfinished"]


async def test_a_shutdown_opens_no_final() -> None:
    async with stage() as s:
        a = await part(s, b"abc")
        await s.tus.drain()
        answer = await join(s, a)
        assert (answer.status, code(answer)) == (503, "draining")


# ---- what is known only later


async def later(s: Stage, data: bytes = b"") -> str:
    """A part whose length nobody knows yet."""
    url = await s.client.create("/files", headers={**PARTIAL, "Upload-Defer-Length": "1"})
    if data:
        assert (await s.client.append(url, data)).status == 204
    return url


async def test_a82_bytes_that_are_there_count_before_a_length_is_told() -> None:
    async with stage(max_size=5) as s:
        a, b = await part(s, b"abc"), await later(s, b"def")
        assert_refused(await join(s, a, b), 413, "upload_too_large")


async def test_a_final_that_turns_out_too_short_for_the_gate_ends() -> None:
    async def on_first_chunk(upload: Upload, head: bytes) -> None:
        raise AssertionError("it sees no final that is too short")

    async with stage(on_first_chunk=on_first_chunk, min_first_chunk=4) as s:
        a = await later(s)
        url = await joined(s, a)
        assert (await s.client.append(a, b"abc", headers={"Upload-Length": "3"})).status == 204
        assert_head_refused(await s.client.head(url), 400)
        assert_head_refused(await s.client.head(url), 410)


async def test_what_waited_too_long_is_not_joined_any_more() -> None:
    async with stage(expiry=Expiry(initial=timedelta(hours=1))) as s:
        a = await begun(s)
        url = await joined(s, a)
        s.clock.advance(timedelta(minutes=59))
        assert (await s.client.append(a, b"abc")).status == 204
        s.clock.advance(timedelta(minutes=2))
        assert_head_refused(await s.client.head(url), 410)
        assert s.store.records[id_of(url)].state is UploadState.WAITING


async def test_a_part_that_is_ended_while_it_is_joined() -> None:
    urls: list[str] = []

    class Late(NotingStorage):
        async def concatenate(self, place: Place, parts: Sequence[Part]) -> str:
            assert (await s.client.delete(urls[0])).status == 204
            return await super().concatenate(place, parts)

    async with stage(storage=Late()) as s:
        urls.append(await part(s, b"abc"))
        assert_refused(await join(s, *urls), 410, "part_gone")
