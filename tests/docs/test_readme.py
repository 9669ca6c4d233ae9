"""The README's programs run as printed: saved to a file, served, and given an upload."""

import re
import sys
from pathlib import Path

import pytest

from tests.raw_http import Connection
from tests.serving_process import ServingProcess

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text()
PAGES = {
    "README, FastAPI": (README, "FastAPI("),
    "README, Starlette": (README, "Starlette("),
    "how-to, FastAPI": ((ROOT / "docs/how-to/mount.md").read_text(), "FastAPI("),
    "how-to, Starlette": ((ROOT / "docs/how-to/mount.md").read_text(), "Starlette("),
    "how-to, CORS": ((ROOT / "docs/how-to/mount.md").read_text(), "CORSMiddleware"),
}

SERVE = """
import socket, sys, uvicorn
listener = socket.create_server(("127.0.0.1", 0))
config = uvicorn.Config("app:app", lifespan="on", log_level="warning")
class Server(uvicorn.Server):
    async def startup(self, sockets=None):
        await super().startup(sockets)
        print("http://127.0.0.1:%d/files\\n" % listener.getsockname()[1], flush=True)
Server(config).run(sockets=[listener])
"""


def block(page: str, with_word: str) -> str:
    """The first Python block that has the word."""
    blocks: list[str] = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    return next(each for each in blocks if with_word in each)


@pytest.mark.parametrize("name", PAGES)
def test_a_program_takes_an_upload(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = block(*PAGES[name])
    (tmp_path / "app.py").write_text(program)
    monkeypatch.chdir(tmp_path)  # where the program makes its folder
    command = [sys.executable, "-W", "error", "-c", f"import sys; sys.path.insert(0, '.'){SERVE}"]
    with ServingProcess(command) as server:
        with Connection(server.address) as connection:
            announced = connection.ask("OPTIONS", "/files")
            assert announced.status == 204
            assert "creation" in (announced.one("tus-extension") or "")
            for target in ("/files", "/files/"):
                upload = connection.create(target, 11)
                assert connection.append(upload, 0, b"hello ").offset == 6
                assert connection.inspect(upload).offset == 6
                assert connection.append(upload, 6, b"world").status == 204
        server.stop()
        assert server.log == ""
        if "print(upload.filename" in program:
            landed = re.findall(r"^None 11 (.*)$", server.output, re.MULTILINE)
            assert [Path(path).read_bytes() for path in landed] == [b"hello world"] * 2


def test_the_readme_is_short() -> None:
    fastapi = block(README, "FastAPI(").strip().splitlines()
    assert len(fastapi) <= 10
    assert README.count("\n") < 130


def test_the_commands_are_the_projects() -> None:
    """What the README tells to run exists: the extra, the script and the test command that CI runs."""
    assert "pip install uv && uv run --no-dev --extra server tusserve serve ./uploads" in README
    assert "pip install uv && uv run pytest" in README
    assert (ROOT / ".ci/run").read_text().rstrip().endswith("uv run pytest")
