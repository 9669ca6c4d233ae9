"""The reaper: what is due and what it does about it, and that nobody's trouble is another's."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.app.stage import (
    NotingStorage,
    NotingStore,
    Stage,
    assert_head_refused,
    assert_refused,
    id_of,
    stage,
    until,
)
from tests.app.test_hooks_calls import errors
from tusserve import Expiry, FileStorage, Reason, SQLiteStore, SweepReport, TusApp, Upload, UploadState
from tusserve.contracts import Cursor, Place
from tusserve.errors import StorageUnavailable, StoreUnavailable
from tusserve.testing.client import TusClient
from tusserve.testing.clock import ManualClock

pytestmark = pytest.mark.anyio

EXPIRY = Expiry(
    initial=timedelta(days=7),
    idle=timedelta(days=2),
    finished=timedelta(days=30),
    tombstone=timedelta(days=1),
)


async def one_of_each(s: Stage) -> dict[str, str]:
    """Uploads of which each needs another chore in a hundred days, by what that is."""
    urls = {
        "fresh": await s.client.create("/files", length=5),
        "begun": await s.client.create("/files", length=5),
        "complete": await s.whole(b"hello"),
        "gone": await s.whole(b"hello"),
        "finishing": await s.client.create("/files", length=5),
        "ending": await s.whole(b"hello"),
    }
    await s.client.append(urls["begun"], b"he")
    await s.client.delete(urls["gone"])
    s.storage.at.coming["seal"].append(StorageUnavailable("away"))
    await s.client.append(urls["finishing"], b"hello")
    s.storage.at.coming["discard"].append(StorageUnavailable("away"))
    await s.client.delete(urls["ending"])
    return urls


async def test_each_due_upload_gets_what_it_needs() -> None:
    async with stage(expiry=EXPIRY) as s:
        urls = await one_of_each(s)
        assert not await s.tus.sweep()
        s.clock.advance(timedelta(days=100))
        report = await s.tus.sweep()
        assert report == SweepReport(expired=2, completed=1, retried=1, forgotten=2)
        states = {
            name: record.state for name, url in urls.items() if (record := s.store.records.get(id_of(url)))
        }
        assert states == {
            "fresh": UploadState.GONE,
            "begun": UploadState.GONE,
            "finishing": UploadState.COMPLETE,
            "ending": UploadState.GONE,
        }
        s.clock.advance(timedelta(days=1))
        assert await s.tus.sweep() == SweepReport(forgotten=3)
        s.clock.advance(timedelta(days=29))
        assert await s.tus.sweep() == SweepReport(forgotten=1)
        assert not s.store.records


async def test_a_dry_run_counts_and_changes_nothing() -> None:
    async with stage(expiry=EXPIRY) as s:
        await one_of_each(s)
        s.clock.advance(timedelta(days=100))
        before, held = dict(s.store.records), s.storage.bytes
        s.store.at.calls.clear()
        s.storage.at.calls.clear()
        report = await s.tus.sweep(dry_run=True)
        assert report == SweepReport(expired=2, retried=2, forgotten=2)
        assert (s.store.records, s.storage.bytes) == (before, held)
        assert set(s.store.at.calls) == {"due"}
        assert not s.storage.at.calls


@pytest.mark.parametrize(
    ("sent", "after"), [(b"", timedelta(days=7)), (b"he", timedelta(days=2))], ids=["fresh", "begun"]
)
async def test_an_upload_expires_to_the_moment(sent: bytes, after: timedelta) -> None:
    ended: list[Reason] = []
    async with stage(expiry=EXPIRY, on_terminate=lambda upload, reason: ended.append(reason)) as s:
        url = await s.client.create("/files", length=5)
        await s.client.append(url, sent)
        s.clock.advance(after - timedelta(microseconds=1))
        assert not await s.tus.sweep()
        assert await s.client.offset(url) == len(sent)
        s.clock.advance(timedelta(microseconds=1))
        assert_head_refused(await s.client.head(url), 410)
        assert_refused(await s.client.append(url, b"x", at=len(sent)), 410, "upload_expired")
        assert (await s.tus.sweep()).expired == 1
        assert ended == [Reason.EXPIRED]
        assert s.storage.bytes == 0


async def test_an_upload_of_the_host_s_expires_as_the_host_said() -> None:
    async with stage(expiry=EXPIRY) as s:
        soon = await s.tus.create(length=5, expires_in=timedelta(hours=1))
        late = await s.tus.create(length=5, expires_in=timedelta(days=365))
        s.clock.advance(timedelta(days=30))
        assert (await s.tus.sweep()).expired == 1
        assert await s.state(s.tus.url_for(soon)) is UploadState.GONE
        assert await s.state(s.tus.url_for(late)) is UploadState.RECEIVING


async def test_a_live_writer_renews_what_had_expired() -> None:
    async with stage(expiry=EXPIRY) as s:
        url = await s.client.create("/files", length=10)
        async with s.client.half_open(url, b"01") as writer:
            s.clock.advance(timedelta(days=8))
            assert not await s.tus.sweep()
            assert await s.client.offset(url) == 2, "asked for a checkpoint it gave one"
            writer.cut()
            await writer.response()
        assert await s.client.offset(url) == 2
        assert (await s.upload(url)).expires_at == s.clock() + EXPIRY.idle


async def test_a_tombstone_is_410_until_it_is_forgotten() -> None:
    async with stage(expiry=EXPIRY) as s:
        url = await s.whole(b"hello")
        await s.client.delete(url)
        s.clock.advance(timedelta(days=1) - timedelta(microseconds=1))
        assert not await s.tus.sweep()
        assert_head_refused(await s.client.head(url), 410)
        s.clock.advance(timedelta(microseconds=1))
        assert await s.tus.sweep() == SweepReport(forgotten=1)
        assert_head_refused(await s.client.head(url), 404)


async def test_tombstones_are_kept_a_while_also_without_an_expiry() -> None:
    async with stage(expiry=None) as s:
        url = await s.whole(b"hello")
        await s.client.delete(url)
        s.clock.advance(Expiry().tombstone - timedelta(microseconds=1))
        assert not await s.tus.sweep()
        s.clock.advance(timedelta(microseconds=1))
        assert await s.tus.sweep() == SweepReport(forgotten=1)


async def test_of_a_finished_upload_only_the_record_is_forgotten() -> None:
    ended: list[Reason] = []
    async with stage(expiry=EXPIRY, on_terminate=lambda upload, reason: ended.append(reason)) as s:
        url = await s.whole(b"hello")
        upload = await s.upload(url)
        s.clock.advance(timedelta(days=30) - timedelta(microseconds=1))
        assert not await s.tus.sweep()
        s.clock.advance(timedelta(microseconds=1))
        assert await s.tus.sweep() == SweepReport(forgotten=1)
        assert_head_refused(await s.client.head(url), 404)
        assert not ended
        assert "discard" not in s.storage.at.calls
        async with upload.open() as body:
            assert b"".join([piece async for piece in body]) == b"hello"


async def test_uploads_that_need_hooks_are_skipped_where_there_are_none() -> None:
    storage, store, clock = NotingStorage(), NotingStore(), ManualClock()
    done: list[str] = []
    async with stage(
        storage=storage, store=store, clock=clock, expiry=EXPIRY, on_complete=lambda u: done.append(u.id)
    ) as host:
        urls = await one_of_each(host)
        done.clear()
        clock.advance(timedelta(days=100))
        before = dict(store.records)
        for dry_run in (True, False):
            async with stage(storage=storage, store=store, clock=clock, expiry=EXPIRY) as other:
                report = await other.tus.sweep(dry_run=dry_run)
                assert report == SweepReport(skipped=4, forgotten=2)
        forgotten = {id_of(urls["gone"]), id_of(urls["complete"])}
        assert store.records == {key: record for key, record in before.items() if key not in forgotten}
        assert await host.tus.sweep() == SweepReport(expired=2, completed=1, retried=1)
        assert done == [id_of(urls["finishing"])]


async def test_many_that_are_skipped_starve_nobody() -> None:
    storage, store, clock = NotingStorage(), NotingStore(), ManualClock()
    async with stage(storage=storage, store=store, clock=clock, on_complete=lambda upload: None) as host:
        for _ in range(250):
            await host.tus.create(length=5)
    clock.advance(timedelta(seconds=1))
    async with stage(storage=storage, store=store, clock=clock) as s:
        for _ in range(150):
            await s.tus.create(length=5)
        clock.advance(timedelta(days=8))
        assert await s.tus.sweep() == SweepReport(skipped=250, expired=150)


class Moody(NotingStorage):
    """A storage that cannot discard one upload, in one way or the other."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.hates = ""
        self._error = error

    async def discard(self, place: Place, cursor: Cursor) -> None:
        if place.id == self.hates:
            raise self._error
        await super().discard(place, cursor)


@pytest.mark.parametrize("error", [StorageUnavailable("away"), OSError("a storage that breaks its promises")])
async def test_one_that_fails_does_not_stop_the_others(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    storage = Moody(error)
    async with stage(storage=storage) as s:
        first = await s.tus.create(length=5)
        storage.hates = first.id
        s.clock.advance(timedelta(seconds=1))
        others = [await s.tus.create(length=5) for _ in range(3)]
        s.clock.advance(timedelta(days=8))
        report = await s.tus.sweep()
        assert (report.expired + report.failed, report.failed) in {(4, 0), (4, 1)}
        assert [await s.state(s.tus.url_for(each)) for each in others] == [UploadState.GONE] * 3
        assert s.kept(s.tus.url_for(first)).state is UploadState.ENDING
        assert errors(caplog)[0][0] == first.id
        assert len(errors(caplog)) == 1
        storage.hates = ""
        s.clock.advance(timedelta(minutes=5))
        await s.tus.sweep()
        assert await s.state(s.tus.url_for(first)) is UploadState.GONE


@pytest.mark.parametrize("at", ["acquire", "commit", "forget"])
async def test_a_store_that_fails_for_one_does_not_stop_the_others(
    at: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with stage() as s:
        for _ in range(3):
            await s.tus.create(length=5)
        s.clock.advance(timedelta(days=8))
        if at == "forget":
            await s.tus.sweep()
            s.clock.advance(timedelta(days=8))
        s.store.at.coming[at].extend(StoreUnavailable("away") for _ in range(4 if at == "commit" else 1))
        report = await s.tus.sweep()
        assert (report.failed, report.expired + report.forgotten) == (1, 2)
        assert len(errors(caplog)) == 1
        s.clock.advance(timedelta(minutes=5))
        report = await s.tus.sweep()
        assert report.failed == 0
        assert report.expired + report.forgotten + report.retried == 1


async def test_a_store_that_is_away_is_said_to_the_host_who_sweeps() -> None:
    async with stage() as s:
        s.store.at.coming["due"].append(StoreUnavailable("away"))
        with pytest.raises(StoreUnavailable):
            await s.tus.sweep()


async def test_two_sweeps_at_once_do_everything_once() -> None:
    ended: list[str] = []

    async def gone(upload: Upload, reason: Reason) -> None:
        await asyncio.sleep(0.001)
        ended.append(upload.id)

    async with stage(on_terminate=gone) as s:
        uploads = [(await s.tus.create(length=5)).id for _ in range(20)]
        s.clock.advance(timedelta(days=8))
        reports = await asyncio.gather(*(s.tus.sweep() for _ in range(4)))
        assert sum(report.expired for report in reports) == 20
        assert sorted(ended) == sorted(uploads)


# ---- by itself


async def test_an_app_sweeps_by_itself_at_once_and_again_and_again() -> None:
    clock = ManualClock()
    storage, store = NotingStorage(), NotingStore()
    async with stage(storage=storage, store=store, clock=clock) as s:
        first = await s.tus.create(length=5)
    clock.advance(timedelta(days=8))
    tus = TusApp("/files", storage=storage, store=store, clock=clock, sweep_every=timedelta(seconds=0.02))
    async with TusClient(tus):
        await until(lambda: store.records[first.id].state is UploadState.GONE)
        second = await tus.create(length=5)
        clock.advance(timedelta(days=7))
        await until(lambda: second.id in store.records and store.records[second.id].state is UploadState.GONE)


@pytest.mark.parametrize("error", [StoreUnavailable("away"), ZeroDivisionError("a bug")])
async def test_a_sweep_that_fails_is_logged_and_the_next_one_comes(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    store = NotingStore()
    store.at.coming["due"].extend([error] * 3)
    tus = TusApp("/files", storage=NotingStorage(), store=store, sweep_every=timedelta(seconds=0.01))
    async with TusClient(tus):
        await until(lambda: store.at.calls.count("due") >= 5)
    assert [record.levelname for record in caplog.records] == ["ERROR"] * 3


class ElectingStore(NotingStore):
    """One of several processes that share it."""

    is_elected = False

    async def elected(self, name: str) -> bool:
        self.at.calls.append(f"elected {name}")
        return self.is_elected


async def test_of_several_processes_one_sweeps() -> None:
    store = ElectingStore()
    tus = TusApp(
        "/files", name="a", storage=NotingStorage(), store=store, sweep_every=timedelta(seconds=0.01)
    )
    async with TusClient(tus):
        await until(lambda: store.at.calls.count("elected a") >= 3)
        assert "due" not in store.at.calls
        assert await tus.sweep() == SweepReport(), "by hand it is done whoever is elected"
        count = store.at.calls.count("due")
        store.is_elected = True
        await until(lambda: store.at.calls.count("due") > count)


async def test_nobody_sweeps_where_the_host_does_it() -> None:
    store = NotingStore()
    tus = TusApp("/files", storage=NotingStorage(), store=store, sweep_every=None)
    async with TusClient(tus) as client:
        await client.create("/files", length=5)
        await asyncio.sleep(0.02)
    assert "due" not in store.at.calls


def test_a_report_is_true_if_it_tells_anything() -> None:
    assert not SweepReport()
    assert SweepReport(strays=1)
    assert SweepReport(skipped=1)


async def test_what_somebody_writes_is_no_stray_however_old_a_clock_says_it_is(tmp_path: Path) -> None:
    """The clock jumps over the longest expiry while a body is on its way, and a sweep follows."""
    clock = ManualClock(datetime.now(UTC))
    tus = TusApp(
        "/files",
        storage=FileStorage(tmp_path / "bytes"),
        store=SQLiteStore(tmp_path / "records.db"),
        sweep_every=None,
        clock=clock,
    )
    body = bytes(800_000)
    async with TusClient(tus) as client:
        url = await client.create("/files", length=900_000)
        async with client.half_open(url, body[:600_000], content_length=len(body)) as patch:
            await patch.until_asked()
            await until(lambda: bool(list((tmp_path / "bytes/data").rglob("*.*"))))
            clock.advance(timedelta(days=8))
            assert (await tus.sweep()).strays == 0
            await patch.more(body[600_000:])
            patch.end()
            assert (await patch.response()).status == 204
        answer = await client.append(url, bytes(100_000), at=800_000)
        assert answer.status == 204, answer


async def test_uploads_of_an_app_without_expiry_lose_the_date_that_they_had() -> None:
    async with stage() as s:
        url = await s.client.create("/files", length=5)
    async with stage(storage=s.storage, store=s.store, clock=s.clock, expiry=None) as after:
        assert (await after.client.append(url, b"he")).status == 204
        after.clock.advance(timedelta(days=400))
        assert not await after.tus.sweep()
        assert await after.client.offset(url) == 2
