"""What a host may set: each mistake is a `ConfigError` at start, with a sentence that says what to mend."""

import re
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

import pytest

from tests.app.stage import NotingStorage, NotingStore, stage
from tusserve import ConfigError, Expiry, FileStorage, SQLiteStore, Timeouts, TusApp
from tusserve.storage.memory import MemoryStorage
from tusserve.stores.memory import MemoryStore
from tusserve.testing.client import TusClient

PLUGINS: dict[str, Any] = {"storage": MemoryStorage(), "store": MemoryStore()}


class HalfStorage:
    """A storage whose author forgot `seal`."""

    checkpoint_bytes = 1

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *args: object) -> None: ...

    def writer(self) -> None: ...

    def read(self) -> None: ...

    async def discard(self) -> None: ...


class HalfStore(NotingStore):
    """A store whose author forgot `due`."""

    def __getattribute__(self, name: str) -> object:
        if name == "due":
            raise AttributeError(name)
        return super().__getattribute__(name)


NEVER = timedelta()

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"path": "files"}, "path.*'files'"),
    ({"path": ""}, "path"),
    ({"path": "//files"}, "path"),
    ({"path": "/files?x=1"}, "path"),
    ({"path": "/files#x"}, "path"),
    ({"path": "/a//b"}, "path"),
    ({"path": "/files/{tenant}"}, "path"),
    ({"path": "/fi les"}, "path"),
    ({"path": "/\u0444"}, "path"),
    ({"path": "/a/../b"}, "path"),
    ({"path": "/%66iles"}, "path"),
    ({"path": "https://example.com/files"}, "path"),
    ({"path": None}, "path"),
    ({"storage": MemoryStore(), "store": MemoryStorage()}, "storage=.*MemoryStore.*'writer'.*swapped"),
    ({"storage": HalfStorage()}, "storage=.*HalfStorage.*'seal'$"),
    ({"store": HalfStore()}, "store=.*HalfStore.*'due'$"),
    ({"storage": None}, "storage=.*NoneType"),
    ({"store": object()}, "store=.*object"),
    ({"storage": MemoryStorage}, r"storage=.*MemoryStorage.*MemoryStorage\(\.\.\.\)"),
    ({"store": SQLiteStore}, r"store=.*SQLiteStore.*SQLiteStore\(\.\.\.\)"),
    ({"name": ""}, "name"),
    ({"extensions": {"checksum-trailer"}}, "unknown extension 'checksum-trailer'"),
    ({"extensions": {"creation-defer-length"}}, "creation-defer-length needs creation"),
    ({"extensions": {"creation-with-upload"}}, "creation-with-upload needs creation"),
    ({"extensions": {"expiration"}, "expiry": None}, "expiration"),
    ({"storage": "uploads"}, r"storage=.*FileStorage\('uploads'\)"),
    ({"store": Path("a.db")}, r"store=.*SQLiteStore\('a.db'\)"),
    ({"extensions": "creation"}, r"extensions.*\['creation'\]"),
    ({"max_size": "10GiB"}, "max_size is a whole number, not '10GiB'"),
    ({"sniff_size": "x"}, "sniff_size"),
    ({"sweep_every": 60}, "sweep_every is a timedelta or None, not 60"),
    ({"expiry": 7}, "expiry is an Expiry or None, not 7"),
    ({"expiry": Expiry(initial=7)}, "expiry.initial is a timedelta, not 7"),  # type: ignore[arg-type]
    ({"timeouts": 5}, "timeouts is a Timeouts, not 5"),
    ({"timeouts": Timeouts(idle=5)}, "timeouts.idle is a timedelta, not 5"),  # type: ignore[arg-type]
    ({"base_url": 5}, "base_url is a URL or None, not 5"),
    ({"max_size": 0}, "max_size"),
    ({"max_size": -1}, "max_size"),
    ({"sniff_size": 0}, "sniff_size"),
    ({"min_first_chunk": -1}, "min_first_chunk"),
    ({"min_first_chunk": 5000}, "min_first_chunk.*4096"),
    ({"max_bodies": 0}, "max_bodies"),
    ({"expiry": Expiry(initial=NEVER)}, "expiry.initial"),
    ({"expiry": Expiry(initial=timedelta.max)}, "expiry.initial"),
    ({"expiry": Expiry(tombstone=timedelta.max)}, "expiry.tombstone"),
    ({"base_url": "https://\u4f8b.example"}, "base_url.*ASCII"),
    ({"base_url": "https://a.example\n"}, "base_url.*ASCII"),
    ({"expiry": Expiry(idle=timedelta(seconds=-1))}, "expiry.idle"),
    ({"expiry": Expiry(finished=NEVER)}, "expiry.finished"),
    ({"expiry": Expiry(tombstone=timedelta(seconds=-1))}, "expiry.tombstone"),
    ({"sweep_every": NEVER}, "sweep_every"),
    ({"timeouts": Timeouts(idle=NEVER)}, "timeouts.idle"),
    ({"timeouts": Timeouts(hook=NEVER)}, "timeouts.hook"),
    ({"timeouts": Timeouts(finish_wait=NEVER)}, "timeouts.finish_wait"),
    ({"timeouts": Timeouts(min_rate=0)}, "timeouts.min_rate"),
    ({"base_url": "api.example.com"}, "base_url"),
    ({"base_url": "ftp://example.com"}, "base_url"),
    ({"on_complete": "done"}, "on_complete.*str"),
    ({"authorize": 5}, "authorize.*int"),
    ({"render_error": "x"}, "render_error.*str"),
]


@pytest.mark.parametrize(
    ("options", "sentence"), WRONG, ids=[re.sub(r"\W+", " ", str(each)) for each, _ in WRONG]
)
def test_a_mistake_is_a_config_error_that_says_what_to_mend(options: dict[str, Any], sentence: str) -> None:
    given = {"path": "/files", **PLUGINS, **options}
    path = given.pop("path")
    with pytest.raises(ConfigError, match=sentence):
        TusApp(path, **given)


@pytest.mark.parametrize(
    "path", ["/", "/files", "/files/", "/v1/uploads", "/a-b_c.d~e", "/@me/$x,y;z=1", "/a.b/..c"]
)
def test_a_path_may_be_any_that_a_url_has(path: str) -> None:
    assert TusApp(path, **PLUGINS).url_for("x") == path.rstrip("/") + "/x"


def test_the_constructor_touches_nothing(tmp_path: Path) -> None:
    storage, store = NotingStorage(), NotingStore()
    TusApp("/files", storage=storage, store=store)
    assert not storage.at.calls
    assert not store.at.calls
    TusApp("/files", storage=FileStorage(tmp_path / "a"), store=SQLiteStore(tmp_path / "b.db"))
    assert not list(tmp_path.iterdir())


@pytest.mark.anyio
async def test_every_extension_may_be_left_out() -> None:
    async with stage(extensions={"termination", "expiration"}) as s:
        assert (await s.client.options("/files")).headers["tus-extension"] == "expiration,termination"
        post = await s.client.request("POST", "/files", headers={"Upload-Length": "5"})
        assert (post.status, post.headers["allow"]) == (405, "OPTIONS")
        upload = await s.tus.create(length=5)
        assert (await s.client.append(s.tus.url_for(upload), b"hello")).status == 204
    async with stage(extensions={"creation"}) as s:
        url = await s.client.create("/files", length=5)
        answer = await s.client.delete(url)
        assert (answer.status, answer.headers["allow"]) == (405, "OPTIONS, HEAD, PATCH")


@pytest.mark.anyio
async def test_an_app_at_the_root() -> None:
    tus = TusApp("/", storage=MemoryStorage(), store=MemoryStore(), sweep_every=None)
    async with TusClient(tus) as client:
        url = await client.create("/", length=5)
        assert url.count("/") == 1
        assert (await client.append(url, b"hello")).status == 204
