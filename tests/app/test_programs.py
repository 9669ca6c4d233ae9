"""The programs that the documentation prints, run as they are printed."""

import logging
import sys
from collections.abc import Callable, Generator
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

import pytest

from tests.app.hosts import configure_django
from tests.app.programs import HOST, PROGRAMS
from tests.app.stage import OCTETS, id_of
from tusserve import MemoryStorage, MemoryStore, TusApp
from tusserve.protocol.records import UploadState
from tusserve.testing.check import Check
from tusserve.testing.client import Response, TusClient

pytestmark = pytest.mark.anyio

Program: TypeAlias = Callable[[str], Any]


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Program]:
    """Imports a program by its name, in a folder where all of them lie."""
    names = [*PROGRAMS, *HOST]
    for name, text in {**PROGRAMS, **HOST}.items():
        (tmp_path / f"{name}.py").write_text(text)
    kept: dict[str, ModuleType] = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield import_module
    for name in names:
        sys.modules.pop(name, None)
    sys.modules.update(kept)


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged as a warning or worse."""
    return [record.getMessage() for record in caplog.records if record.levelno >= 30]


def bytes_of(path: Path) -> bytes:
    """What is in a file."""
    return path.read_bytes()


async def works(client: TusClient, path: str, headers: dict[str, str] | None = None) -> str:
    """OPTIONS, POST, HEAD, PATCH and DELETE below this path; returns the Location of a whole upload."""
    for each in (path, path + "/"):
        assert (await client.options(each, headers=headers)).headers["tus-version"] == "1.0.0"
    url = await client.create(path, length=10, headers=headers)
    also = await client.create(path + "/", length=10, headers=headers)
    assert url.startswith(f"{path}/")
    assert (await client.delete(also, headers=headers)).status == 204
    await client.append(url, b"0123456789", cut_after=4, headers=headers)
    head = await client.head(url, headers=headers)
    assert (head.status, head.headers["upload-offset"]) == (200, "4")
    assert (await client.append(url, b"456789", at=4, headers=headers)).status == 204
    return url


async def test_a_fastapi(
    program: Program, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    a = program("a_fastapi")
    async with TusClient(a.app) as client:
        url = await works(client, "/files")
        upload = await a.tus.get(id_of(url))
        printed = capsys.readouterr().out
        assert printed == f"None 10 {upload.local_path()}\n"
        assert bytes_of(upload.local_path()) == b"0123456789"
        assert (await client.request("GET", "/files/" + upload.id)).status == 405
        assert (await client.request("GET", "/elsewhere")).status == 404
    async with TusClient(a.tus) as client:
        await works(client, "/files")
        assert (await client.head(url)).status == 200
    assert not warnings_in(caplog)


async def test_b_starlette(program: Program, caplog: pytest.LogCaptureFixture) -> None:
    b = program("b_starlette")
    async with TusClient(b.app) as client:
        await works(client, "/files")
    assert not warnings_in(caplog)


async def test_b_works_too(program: Program, caplog: pytest.LogCaptureFixture) -> None:
    b = program("b_starlette")
    async with TusClient(b.works_too) as client:
        url = await client.create("/files/", length=10)
        assert await client.offset(url) == 0
        assert (await client.append(url, b"0123456789")).status == 204
        assert (await client.delete(url)).status == 204
        (warning,) = warnings_in(caplog)
        assert "lifespan" in warning
    async with b.tus:
        pass  # somebody has to end what nobody's lifespan began


def token(who: str) -> dict[str, str]:
    """The header by which the host's users say who they are."""
    return {"Authorization": f"Bearer of-{who}"}


async def test_c_auth(program: Program) -> None:
    c, myapp = program("c_auth"), program("myapp")
    async with TusClient(c.app) as client:
        await _nobody_is_let_in(client, "/files")
        url = await works(client, "/files", token("ann"))
        assert (myapp.ROWS[id_of(url)].owner, myapp.ROWS[id_of(url)].size) == ("ann", 10)
        assert (await c.tus.get(id_of(url))).key == f"ann/{id_of(url)}"
        assert (await client.head(url, headers=token("bob"))).status == 404
        myapp.ROWS[id_of(url)].size = 10 * 1024**3
        answer = await client.request("POST", "/files", headers={"Upload-Length": "1", **token("ann")})
        assert answer.status == 413
        assert _json(answer)["code"] == "over_quota"
        assert _json(answer)["used"] == 10 * 1024**3
        assert await client.create("/files", length=1, headers=token("bob"))


async def _nobody_is_let_in(client: TusClient, path: str) -> None:
    answers = [
        await client.request("POST", path, headers={"Upload-Length": "1"}),
        await client.request("POST", path, headers={"Upload-Length": "1", "Authorization": "Bearer x"}),
        await client.head(path + "/0123"),
    ]
    assert [answer.status for answer in answers] == [401, 401, 401]
    assert {answer.headers["tus-resumable"] for answer in answers} == {"1.0.0"}
    assert {answer.headers["www-authenticate"] for answer in answers} == {"Bearer"}


async def test_c_with_depends(program: Program) -> None:
    c = program("c_auth")
    async with TusClient(c.with_depends) as client:
        answer = await client.request("POST", "/files", headers={"Upload-Length": "1"})
        assert answer.status == 401
        ann, bob = token("ann"), token("bob")
        url = await client.create("/files", length=10, headers=ann)
        assert (await client.append(url, b"01234", headers=ann)).status == 204
        assert (await client.head(url, headers=bob)).status == 404
        sent = {"Content-Type": OCTETS, "Upload-Offset": "5", "X-HTTP-Method-Override": "PATCH", **ann}
        assert (await client.request("POST", url, headers=sent, body=b"56789")).status == 204
        assert (await client.delete(url, headers=ann)).status == 204
        assert (await c.tus.get(id_of(url))).owner == "ann"


async def test_d_media(program: Program, caplog: pytest.LogCaptureFixture) -> None:
    d = program("d_media")
    video = b"\0\0\0\x20ftypisom" + bytes(100)
    async with TusClient(d.tus) as client:
        upload = await d.tus.create(length=len(video), attributes={"project": 7})
        url = d.tus.url_for(upload)
        assert (await client.append(url, video)).status == 204
        upload = await d.tus.get(upload.id)
        assert upload.key == f"projects/7/{upload.id}.mp4"
        assert (upload.content_type, upload.attributes) == ("video/mp4", {"project": 7, "type": "video"})
        assert str(upload.local_path()).endswith(upload.key)
        assert bytes_of(upload.local_path()) == video
        for _ in range(2):
            url = await client.create("/v1/uploads", length=100)
            answer = await client.append(url, b"x" * 100)
            assert (answer.status, answer.headers["content-type"]) == (409, "application/json")
            assert answer.headers["tus-resumable"] == "1.0.0"
            assert _json(answer) == {
                "error": {
                    "code": "unsupported_media",
                    "message": "Neither audio nor video.",
                    "fields": {"file": "type"},
                }
            }
            assert (await client.head(url)).status == 410
        short = await client.request("POST", "/v1/uploads", headers={"Upload-Length": "63"})
        assert (short.status, _json(short)["error"]["code"]) == (400, "length_too_short")
        (hint,) = warnings_in(caplog)
        assert "409" in hint


async def test_e_precreate(program: Program) -> None:
    e, myapp = program("e_precreate"), program("myapp")
    ann = token("ann")
    async with TusClient(e.app) as client:
        post = await client.request("POST", "/v1/uploads", headers={"Upload-Length": "1", **ann})
        assert post.status == 405
        options = await client.options("/v1/uploads")
        assert options.headers["tus-extension"] == "expiration,termination"
        sent = {"Content-Type": "application/json", **ann}
        answer = await client.request("POST", "/v1/assets", headers=sent, body=b'{"size_bytes": 100}')
        assert answer.status == 201
        made = _json(answer)
        url = f"/v1/uploads/{made['id']}"
        assert made["upload_url"] == f"https://api.example.com{url}" == answer.headers["location"]
        assert "upload-expires" in answer.headers
        assert myapp.ROWS[made["id"]].owner == "ann"
        assert (await client.append(url, b"x" * 100, headers=ann)).status == 204
        assert (await client.append(url, b"x" * 100, headers=token("bob"))).status == 404
        assert [(await client.delete(url, headers=ann)).status for _ in range(2)] == [204, 204]
        assert made["id"] not in myapp.ROWS


async def test_h_others(program: Program, caplog: pytest.LogCaptureFixture) -> None:
    configure_django()
    root = logging.getLogger()
    handlers, level = [*root.handlers], root.level
    h = program("h_others")
    root.handlers[:], root.level = handlers, level  # Litestar put its own there
    for app in (h.litestar_app, h.quart_app, h.django_app):
        async with TusClient(app) as client:
            await works(client, "/files")
    assert not warnings_in(caplog)


async def test_i_test(program: Program, tmp_path: Path) -> None:
    i = program("i_test")
    await i.test_a_cut_upload_resumes_and_an_idle_one_expires()
    checks: list[Check] = list(i.storage_checks(i.mine))
    assert len(checks) > 10
    names = [str(check) for check in checks]
    assert len(set(names)) == len(names)
    for check in checks[:5]:
        await i.test_my_storage(check)


async def test_m_several(program: Program, tmp_path: Path) -> None:
    m = program("m_several")
    settings = m.Settings(uploads=tmp_path / "up", max_size=1000)
    video = b"\0\0\0\x20ftypisom" + bytes(100)
    async with TusClient(m.create_app(settings)) as client:
        avatar = await client.create("/avatars", length=5)
        assert (await client.append(avatar, b"hello")).status == 204
        assert (await client.head(f"/videos/{id_of(avatar)}")).status == 404
        refused = await client.append(await client.create("/videos", length=100), b"x" * 100)
        assert refused.status == 409
        too_large = await client.request("POST", "/videos", headers={"Upload-Length": "1001"})
        assert too_large.status == 413
        assert (await client.options("/avatars")).headers["tus-max-size"] == str(5 * 1024**2)
        assert len(video) <= 1000


async def test_f_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lines of `f_read.py` that any storage can do."""
    monkeypatch.chdir(tmp_path)
    tus = TusApp("/files", storage=MemoryStorage(), store=MemoryStore())
    async with TusClient(tus) as client:
        url = await client.create("/files", length=100)
        await client.append(url, b"x" * 100)
        upload = await tus.get(id_of(url))
        assert upload is not None
        async with upload.open(0, 64) as body:
            head = b"".join([chunk async for chunk in body])
        assert head == b"x" * 64
        assert upload.local_path() is None
        await upload.save_to("copy.bin")
        assert bytes_of(tmp_path / "copy.bin") == b"x" * 100
        async with tus:
            assert not await tus.sweep(dry_run=True)
        assert upload.state is UploadState.COMPLETE
        assert upload.created_at.utcoffset() == timedelta()


def _json(answer: Response) -> Any:
    return answer.json()
