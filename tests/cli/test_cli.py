"""The command line without a server: whatever is wrong is one sentence and exit code 2, never a traceback."""

import json
import logging
import socket
import sys
from pathlib import Path

import pytest

from tusserve.cli import run
from tusserve.cli_logging import JsonFormatter, TextFormatter


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in [name for name in os.environ if name.startswith("TUSSERVE_")]:
        monkeypatch.delenv(name)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The sentence with which the command refuses."""
    root, ours = logging.getLogger(), logging.getLogger("tusserve")
    handlers, level, our_level = list(root.handlers), root.level, ours.level
    try:
        assert run(arguments) == 2
    finally:  # a process that goes on must not keep the logging of one that would have ended
        root.handlers[:], root.level = handlers, level
        ours.setLevel(our_level)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("tusserve: ")
    assert said.err.count("\n") == 1, said.err
    return said.err


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["serve"], "DIR"),
        (["serve", "x", "--frobnicate"], "--frobnicate"),
        (["serve", "x", "--port"], "--port"),
        (["serve", "x", "--port", "http"], "'http' is not a port"),
        (["serve", "x", "--max-size", "big"], "'big' is not a size"),
        (["serve", "x", "--expire-idle", "off"], "both"),
        (["serve", "x", "--expire-initial", "7"], "'7' is not a duration"),
        (["serve", "x", "--durability", "some"], "full, checkpoint, none"),
        (["serve", "x", "--state", "postgres://x"], "sqlite:///"),
        (["serve", "x", "--log-format", "xml"], "text, json"),
        (["serve", "x", "--behind-proxy=everyone"], "'everyone' is not a network"),
        (["serve", "x", "--behind-proxy", "10.0.0.0/8"], "10.0.0.0/8"),
        (["serve", "x", "--base-url", "here"], "'here' is not an address"),
        (["serve", "x", "--cors-origin", ","], "',' is no origin"),
        (["serve", "x", "--cors-origin", ""], "'' is no origin"),
        (["serve", "x", "--path", "files"], "'files' is not a path"),
        (["sweep", "x", "--port", "1"], "--port"),
        (["frobnicate"], "frobnicate"),
    ],
    ids=" ".join,
)
def test_a_wrong_word_is_one_sentence(
    arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert named in refused(capsys, *arguments)


def test_a_wrong_environment_is_one_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUSSERVE_MAX_SIZE", "big")
    assert "TUSSERVE_MAX_SIZE" in refused(capsys, "serve", "x")


def test_an_unknown_extension_is_one_sentence(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "'teleport'" in refused(capsys, "serve", str(tmp_path), "--extensions", "creation,teleport")


def test_an_origin_that_is_none_is_one_sentence(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    said = refused(capsys, "serve", str(tmp_path), "--cors-origin", "*", "--cors-origin", "a.example/")
    assert "like 'https://app.example.com'" in said and "'a.example/'" in said


def test_a_busy_port_is_one_sentence(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"127.0.0.1:{port}" in refused(capsys, "serve", str(tmp_path), "--port", str(port))


def test_a_host_that_is_none_is_one_sentence(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "192.0.2.1:0" in refused(capsys, "serve", str(tmp_path), "--host", "192.0.2.1", "--port", "0")
    assert "'a b'" in refused(capsys, "serve", str(tmp_path), "--host", "a b", "--port", "0")


def test_a_folder_that_cannot_be_one_is_one_sentence(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.touch()
    assert str(file) in refused(capsys, "serve", str(file), "--port", "0")
    assert str(file) in refused(capsys, "serve", str(file / "below"), "--port", "0")
    assert "/proc" in refused(capsys, "serve", "/proc/uploads", "--port", "0")
    state = f"sqlite:///{tmp_path / 'missing' / 'uploads.db'}"
    assert "missing" in refused(capsys, "serve", str(tmp_path / "uploads"), "--state", state)


def test_records_that_are_none_are_one_sentence(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "tusserve.db").write_bytes(b"this is no database, whatever its name says" * 100)
    assert "tusserve.db" in refused(capsys, "serve", str(tmp_path), "--port", "0")


def test_sweep_makes_no_records(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "tusserve.db" in refused(capsys, "sweep", str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("tusserve ")
    for arguments in ([], ["--help"], *([name, "--help"] for name in ("serve", "sweep", "ls", "show", "rm"))):
        assert run(arguments) == 0
        said = capsys.readouterr()
        assert "Usage: tusserve" in said.out
        assert "─" not in said.out, "frames are for terminals"


def record(message: str, **more: object) -> logging.LogRecord:
    made = logging.LogRecord("tusserve", logging.ERROR, __file__, 1, message, None, None)
    made.__dict__.update(more)
    return made


def test_json_lines() -> None:
    line = JsonFormatter().format(record("it\nfailed", id="abc", code="hook_failed", other=object()))
    assert "\n" not in line
    said = json.loads(line)
    assert said.pop("time")
    assert said == {
        "level": "error",
        "logger": "tusserve",
        "message": "it\nfailed",
        "id": "abc",
        "code": "hook_failed",
    }
    try:
        raise ValueError("because")
    except ValueError:
        said = json.loads(JsonFormatter().format(record("x", exc_info=sys.exc_info())))
    assert said["error"].endswith("ValueError: because")


def test_text_lines() -> None:
    assert (
        TextFormatter().format(record("it failed", id="abc", code=None)).endswith(" ERROR it failed [id=abc]")
    )
    assert TextFormatter().format(record("it failed")).endswith(" ERROR it failed")
