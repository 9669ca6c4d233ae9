"""The programs that the documentation prints, as it prints them, and the host's own modules that they import.

Owns only text: `test_programs.py` writes it into a folder, imports it there and runs it.
"""

# ruff: noqa: E501 - they are printed as wide as this
from typing import Final

PROGRAMS: Final = {
    "a_fastapi": """\
from fastapi import FastAPI
from tusserve import FileStorage, SQLiteStore, TusApp, Upload

async def done(upload: Upload) -> None:
    print(upload.filename, upload.length, upload.local_path())

tus = TusApp("/files", storage=FileStorage("uploads"), store=SQLiteStore("uploads.db"), on_complete=done)
app = FastAPI(routes=tus.routes, lifespan=tus.lifespan)
""",
    "b_starlette": """\
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from starlette.applications import Starlette
from starlette.routing import Mount
from a_fastapi import tus

@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncGenerator[None]:
    async with tus: yield                                    # async with pool, engine, tus
app = Starlette(routes=[*tus.routes], lifespan=lifespan)
works_too = Starlette(routes=[Mount("/files", tus)])
""",
    "c_auth": """\
from typing import Annotated
from fastapi import Depends, FastAPI, Request, Response
from sqlalchemy import func, select
from myapp import File, Session, bearer, user_of
from tusserve import Accepted, Action, FileStorage, GiB, NewUpload, Rejected, SQLiteStore, TusApp, Upload

async def authorize(request: Request, action: Action, upload: Upload | None) -> str:
    return user_of(await bearer(request) or "")

async def quota(new: NewUpload, request: Request) -> Accepted:
    async with Session() as s:
        used = await s.scalar(select(func.sum(File.size)).where(File.owner == new.owner)) or 0
    if new.length is None or used + new.length > 10 * GiB:
        raise Rejected(413, "over_quota", f"{used} bytes are used.", extra={"used": used})
    return Accepted(key=f"{new.owner}/{new.id}")

async def done(upload: Upload) -> None:                      # may run again: upload.id is the idempotency key
    async with Session.begin() as s:
        await s.merge(File(id=upload.id, owner=upload.owner, size=upload.length))

tus = TusApp("/files", storage=FileStorage("uploads"), store=SQLiteStore("uploads.db"), authorize=authorize, on_create=quota, on_complete=done)
app = FastAPI(routes=tus.routes, lifespan=tus.lifespan)

with_depends = FastAPI(lifespan=tus.lifespan)
@with_depends.api_route("/files", methods=["POST"])          # OPTIONS: one more route without the dependency
@with_depends.api_route("/files/{id}", methods=["HEAD", "PATCH", "DELETE", "POST"])
async def files(user: Annotated[str, Depends(user_of, scope="function")]) -> Response:
    return tus.response(owner=user)
""",
    "d_media": """\
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from tusserve import Accepted, FileStorage, Problem, Rejected, SQLiteStore, TusApp, Upload

def identify(upload: Upload, head: bytes) -> Accepted:
    if head[4:8] != b"ftyp":
        raise Rejected(409, "unsupported_media", "Neither audio nor video.", extra={"fields": {"file": "type"}})
    return Accepted(content_type="video/mp4", key=f"projects/{upload.attributes['project']}/{upload.id}.mp4", attributes={"type": "video"})

def envelope(request: Request, problem: Problem) -> Response:
    return JSONResponse({"error": {"code": problem.code, "message": problem.message, **problem.extra}})
tus = TusApp("/v1/uploads", storage=FileStorage("u"), store=SQLiteStore("u.db"), on_first_chunk=identify, min_first_chunk=64, render_error=envelope)
""",
    "e_precreate": """\
from datetime import timedelta
from typing import Annotated
from fastapi import Body, Depends, FastAPI, Response
from c_auth import authorize
from myapp import File, Session, user_of
from tusserve import Expiry, FileStorage, GiB, Reason, SQLiteStore, TusApp, Upload

async def gone(upload: Upload, reason: Reason) -> None:
    async with Session.begin() as s:
        if row := await s.get(File, upload.id): await s.delete(row)

tus = TusApp("/v1/uploads", storage=FileStorage("u"), store=SQLiteStore("u.db"), authorize=authorize, on_terminate=gone, max_size=50 * GiB,
             extensions={"termination", "expiration"}, idempotent_delete=True, base_url="https://api.example.com",
             expiry=Expiry(initial=timedelta(days=7), idle=timedelta(hours=48)))
app = FastAPI(routes=tus.routes, lifespan=tus.lifespan)

@app.post("/v1/assets", status_code=201)
async def create_asset(size_bytes: Annotated[int, Body(embed=True, ge=64, le=50 * GiB)], response: Response,
                       user: Annotated[str, Depends(user_of)]) -> dict[str, str]:
    async with Session.begin() as s:
        upload = await tus.create(length=size_bytes, owner=user)
        s.add(File(id=upload.id, owner=user, size=size_bytes))
    response.headers.update(tus.headers_for(upload))
    return {"id": upload.id, "upload_url": tus.url_for(upload)}
""",
    "h_others": """\
from django.core.asgi import get_asgi_application
from litestar import Litestar
from litestar.handlers import asgi
from quart import Quart
from a_fastapi import tus

litestar_app = Litestar([asgi("/files", is_mount=True, copy_scope=True)(tus)], lifespan=[tus.lifespan])
quart_app = Quart(__name__)
quart_app.asgi_app = tus.wrap(quart_app.asgi_app)
django_app = tus.wrap(get_asgi_application())                # answers the lifespan that Django refuses
""",
    "i_test": """\
# (a whole storage of one's own is about 22 lines)
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
import pytest
from fastapi import FastAPI
from tusserve import FileStorage, MemoryStorage, MemoryStore, StorageBackend, TusApp
from tusserve.testing import Check, ManualClock, TusClient, storage_checks

@pytest.mark.anyio                                           # anyio, a dependency already, brings the plugin
async def test_a_cut_upload_resumes_and_an_idle_one_expires() -> None:
    tus = TusApp("/files", storage=MemoryStorage(), store=MemoryStore(), clock=(clock := ManualClock()))
    async with TusClient(FastAPI(routes=tus.routes, lifespan=tus.lifespan)) as client:
        url = await client.create("/files", length=10)
        await client.append(url, b"0123456789", cut_after=4)
        assert await client.offset(url) == 4
        clock.advance(timedelta(days=8))
        assert (await tus.sweep()).expired == 1
        assert (await client.append(url, b"456789", at=4)).status == 410

@asynccontextmanager
async def mine(place: Path) -> AsyncGenerator[StorageBackend]:
    async with (storage := FileStorage(place)): yield storage
@pytest.mark.anyio
@pytest.mark.parametrize("check", storage_checks(mine), ids=str)
async def test_my_storage(check: Check) -> None: await check()
""",
    "m_several": """\
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from fastapi import FastAPI
from pydantic_settings import BaseSettings
from d_media import identify
from tusserve import FileStorage, GiB, MiB, SQLiteStore, TusApp

class Settings(BaseSettings):
    uploads: Path = Path("uploads")
    max_size: int = 50 * GiB
def create_app(s: Settings) -> FastAPI:
    disk, db = FileStorage(s.uploads), SQLiteStore(s.uploads / "tus.db")
    videos = TusApp("/videos", name="videos", storage=disk, store=db, max_size=s.max_size, on_first_chunk=identify)
    avatars = TusApp("/avatars", name="avatars", storage=disk, store=db, max_size=5 * MiB)
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        async with videos, avatars: yield
    return FastAPI(routes=[*videos.routes, *avatars.routes], lifespan=lifespan)
""",
}

HOST: Final = {
    "myapp": """\
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, HTTPException
from fastapi.security import OAuth2PasswordBearer
from sqlalchemy import Column

bearer = OAuth2PasswordBearer(tokenUrl="token")

def user_of(token: Annotated[str, Depends(bearer)]) -> str:
    if not token.startswith("of-"):
        raise HTTPException(401, "Not a token of ours.", headers={"WWW-Authenticate": "Bearer"})
    return token.removeprefix("of-")

ROWS: dict[str, "File"] = {}

class File:
    id = Column("id")
    size = Column("size")
    owner = Column("owner")
    def __init__(self, id: str, owner: str, size: int) -> None:
        self.id, self.owner, self.size = id, owner, size

class Session:
    async def __aenter__(self): return self
    async def __aexit__(self, *error): return None
    @classmethod
    def begin(cls): return cls()
    async def scalar(self, statement):
        return statement.of(ROWS.values())
    async def get(self, kind, id): return ROWS.get(id)
    async def merge(self, row): ROWS[row.id] = row
    async def delete(self, row): del ROWS[row.id]
    def add(self, row): ROWS[row.id] = row
""",
    "sqlalchemy": """\
class Column:
    def __init__(self, name): self.name = name
    def __eq__(self, value): return lambda row: getattr(row, self.name) == value

class func:
    @staticmethod
    def sum(column): return lambda rows: sum(getattr(row, column.name) for row in rows) or None

class select:
    def __init__(self, what): self.what, self.holds = what, lambda row: True
    def where(self, holds):
        self.holds = holds
        return self
    def of(self, rows): return self.what([row for row in rows if self.holds(row)])
""",
    "pydantic_settings": """\
from pydantic import BaseModel as BaseSettings
""",
}
"""What stands in for a host's own package and for the packages that it would use."""
