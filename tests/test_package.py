"""What is installed, and what is imported: lean without extras, typed, and public exactly where promised."""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import tusserve

ROOT = Path(__file__).parent.parent
UV = os.environ.get("UV", "uv")
"""`uv run` names itself here; elsewhere it is looked up like any command."""
LAZY = ("uvicorn", "typer", "click", "rich", "httptools", "uvloop", "sqlite3", "fastapi", "pydantic")
"""What `import tusserve` must not pull in: extras, and what only one of the plug-ins needs."""

PUBLIC = """
TusApp Upload UploadState Kind Action Reason Metadata NewUpload Refusal Problem Accepted Rejected
Event Created Progressed Completed Terminated Expiry Timeouts Cors SweepReport
Authorize OnCreate OnFirstChunk OnComplete OnTerminate Observer RenderError
TusError ConfigError UploadNotFound UploadBusy NotComplete Unsupported IdTaken KeyTaken StorageFull
StorageUnavailable StoreUnavailable CursorLost
Extension MiB GiB METHODS ALLOW_HEADERS EXPOSE_HEADERS
StorageBackend UploadStore FileStorage MemoryStorage SQLiteStore MemoryStore
"""
"""What the reference promises, no name more or less."""


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from this tree."""
    folder = tmp_path_factory.mktemp("wheel")
    run([UV, "build", "--wheel", "--quiet", "--out-dir", str(folder), str(ROOT)])
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="session")
def lean(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of a new environment with the wheel and no extra."""
    folder = tmp_path_factory.mktemp("lean") / "venv"
    run([UV, "venv", "--quiet", "--python", sys.executable, str(folder)])
    run([UV, "pip", "install", "--quiet", "--python", str(folder / "bin" / "python"), str(wheel)])
    return folder / "bin"


def run(command: list[str], expected: int = 0) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env, cwd="/")
    assert done.returncode == expected, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def test_the_import_is_lean() -> None:
    program = "import sys, tusserve; print(*sys.modules)"
    loaded = {name.split(".")[0] for name in run([sys.executable, "-c", program]).stdout.split()}
    assert "tusserve" in loaded
    assert not loaded & set(LAZY)


def test_every_public_name_is_there_and_no_other() -> None:
    assert sorted(tusserve.__all__) == sorted(PUBLIC.split())
    for name in tusserve.__all__:
        assert getattr(tusserve, name) is not None
    assert set(tusserve.__all__) <= set(dir(tusserve))
    with pytest.raises(AttributeError, match="nothing_like_it"):
        tusserve.nothing_like_it  # noqa: B018


def test_public_names_work_without_an_extra(lean: Path) -> None:
    program = "import tusserve; print(*(getattr(tusserve, name).__class__ for name in tusserve.__all__))"
    run([str(lean / "python"), "-W", "error", "-c", program])


@pytest.mark.parametrize("door", [["tusserve"], ["python", "-m", "tusserve"]], ids=["script", "module"])
def test_the_command_without_its_extra_says_what_to_install(lean: Path, door: list[str]) -> None:
    done = run([str(lean / door[0]), *door[1:], "serve", "uploads"], expected=2)
    assert done.stdout == ""
    assert re.fullmatch(r"tusserve: [^\n]*pip install '\.\[server\]'\n", done.stderr)


def test_the_core_needs_two_packages(lean: Path) -> None:
    listed = run([UV, "pip", "list", "--quiet", "--format", "freeze", "--python", str(lean / "python")])
    names = {line.split("==")[0].split(" @ ")[0] for line in listed.stdout.split("\n") if line}
    assert names <= {"tusserve", "anyio", "starlette", "idna", "sniffio", "typing-extensions"}


def test_the_wheel_is_typed_and_holds_the_package_only(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "tusserve/py.typed" in names
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"tusserve"}
    assert any(name.endswith("licenses/LICENSE") for name in names)
