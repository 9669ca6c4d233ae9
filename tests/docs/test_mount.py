"""The programs of the page about mounting, as printed, each on a server; `test_readme` has the first two."""

import re
from pathlib import Path
from typing import Final

import pytest
from fastapi import APIRouter, FastAPI
from starlette.testclient import TestClient

from tests.raw_http import Connection, Headers
from tests.servers.running import serving
from tusserve import MemoryStorage, MemoryStore, TusApp

PAGE: Final = (Path(__file__).parent.parent.parent / "docs/how-to/mount.md").read_text()
BLOCKS: Final[list[str]] = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
SETTINGS: Final = "SECRET_KEY = 'tests'\nROOT_URLCONF = 'mysite.urls'\nALLOWED_HOSTS = ['*']\n"
AUTHORIZED: Final = ("Authorization", "Basic YW5uOnNlY3JldA==")
"""ann, by the password of the page."""

PROGRAMS: Final = {
    "FastAPI, dependencies": ("uvicorn-httptools", "Depends(", "app", (AUTHORIZED,)),
    "Litestar": ("granian", "Litestar(", "app", ()),
    "Quart": ("hypercorn", "Quart(", "app", ()),
    "Django": ("uvicorn-h11", "get_asgi_application(", "application", ()),
    "by itself": ("granian", 'TusApp("/files"', "tus", ()),
}


def block(with_word: str) -> str:
    """The shortest that has it."""
    return min((each for each in BLOCKS if with_word in each), key=len)


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_takes_an_upload(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server_name, word, app, headers = PROGRAMS[name]
    (tmp_path / "program.py").write_text(block(word))
    (tmp_path / "mysite").mkdir()
    (tmp_path / "mysite" / "settings.py").write_text(SETTINGS)
    (tmp_path / "mysite" / "urls.py").write_text("urlpatterns = []\n")
    monkeypatch.chdir(tmp_path)  # where the program makes its folder
    with serving(server_name, tmp_path, f"program:{app}") as server:
        with Connection(server.address) as connection:
            for target in ("/files", "/files/"):
                check(connection, target, headers)
            elsewhere = connection.ask("GET", "/elsewhere")
            assert elsewhere.status == 404
        server.stop()
        assert not [word for word in ("WARN", "ERROR", "Traceback") if word in server.log + server.output]
    landed = [path.read_bytes() for path in (tmp_path / "uploads").rglob("*") if path.is_file()]
    assert landed.count(b"hello world") == 2


def test_below_a_prefix() -> None:
    """What the page says of prefixes: the whole path in the outermost app works, and what else people try."""
    headers = {"Tus-Resumable": "1.0.0", "Upload-Length": "5"}

    def asked(app: FastAPI, path: str) -> tuple[int, str]:
        with TestClient(app) as client:
            answer = client.post(path, headers=headers, follow_redirects=False)
        return answer.status_code, answer.headers.get("location", answer.text)

    def tus(path: str) -> TusApp:
        return TusApp(path, storage=MemoryStorage(), store=MemoryStore())

    whole, inside, routed, included = tus("/api/files"), tus("/files"), tus("/files"), tus("/files")
    app = FastAPI(routes=whole.routes, lifespan=whole.lifespan)
    app.mount("/api", FastAPI())
    for path in ("/api/files", "/api/files/"):
        status, told = asked(app, path)
        assert status == 201 and told.startswith("/api/files/")

    app = FastAPI(lifespan=inside.lifespan)
    app.mount("/api", FastAPI(routes=inside.routes))
    status, told = asked(app, "/api/files")
    assert status == 404 and "give it its whole path, '/api/files'" in told and "outermost app" in told

    app = FastAPI(lifespan=routed.lifespan)
    app.include_router(APIRouter(prefix="/api", routes=routed.routes))
    assert (asked(app, "/api/files")[0], asked(app, "/files")[0]) == (404, 201)

    app = FastAPI(lifespan=included.lifespan)
    app.include_router(APIRouter(routes=included.routes), prefix="/api")
    assert asked(app, "/api/files")[0] == 404


def check(connection: Connection, target: str, headers: Headers) -> None:
    """OPTIONS without a name, and an upload of eleven bytes in two requests."""
    assert connection.ask("OPTIONS", target).one("tus-version") == "1.0.0"
    made = connection.ask("POST", target, [("Upload-Length", "11"), *headers])
    upload = made.one("location")
    assert made.status == 201 and upload is not None, made
    assert upload.startswith("/files/")
    assert connection.ask("HEAD", upload, headers).offset == 0
    sent = ("Content-Type", "application/offset+octet-stream")
    for at, piece in ((0, b"hello "), (6, b"world")):
        answer = connection.ask("PATCH", upload, [sent, ("Upload-Offset", str(at)), *headers], piece)
        assert (answer.status, answer.offset) == (204, at + len(piece))
    assert connection.ask("HEAD", upload, headers).offset == 11
    if headers:
        assert connection.ask("HEAD", upload).status == 401
