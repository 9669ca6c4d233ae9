"""What newcomers type and have: a refusal is one sentence that says what to do, and leaves nothing behind."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.cli.operating import TUSSERVE, Typed, at_rest, clean_environment
from tests.serving_process import ServingProcess
from tusserve import TusApp

LONG = "x" * 3000
COMMANDS = (["serve"], ["sweep"], ["ls"], ["show", "ID"], ["rm", "ID"])


@pytest.fixture
def typed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Typed:
    for name in [name for name in os.environ if name.startswith("TUSSERVE_")]:
        monkeypatch.delenv(name)
    return Typed(capsys)


def refused(typed: Typed, *arguments: str | Path) -> str:
    """The one sentence with which the command refuses."""
    out, err = typed(*arguments, expected=2)
    assert out == "" and err.startswith("tusserve: ") and err.count("\n") == 1, err
    return err


async def _no_work(app: TusApp) -> None:
    pass


@pytest.fixture
def uploads(tmp_path: Path) -> Path:
    """A folder in which a server has been."""
    folder = tmp_path / "uploads"

    at_rest(folder, _no_work)
    return folder


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_places_that_cannot_be_are_one_sentence(words: list[str], typed: Typed, tmp_path: Path) -> None:
    name, *more = words
    assert "too long" in refused(typed, name, tmp_path / LONG, *more)
    assert "DIR" in refused(typed, name, "", *more)
    (tmp_path / "u").mkdir()
    assert "too long" in refused(typed, name, tmp_path / "u", *more, "--state", f"sqlite:///{LONG}")
    for state in ("sqlite:///:memory:", f"sqlite:///{tmp_path}/other.db?mode=ro"):
        said = refused(typed, name, tmp_path / "u", *more, "--state", state)
        assert "--state" in said and "MemoryStore" not in said
    assert list((tmp_path / "u").iterdir()) == []


def test_what_is_no_folder_is_called_what_it_is(typed: Typed, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("serve", "ls"):
        assert "is a file, not a folder" in refused(typed, name, tmp_path / "file")
        assert "is a file, not a folder" in refused(typed, name, "/dev/null")
        assert "is a link to nothing" in refused(typed, name, tmp_path / "link")
    (tmp_path / "u").mkdir()
    (tmp_path / "u" / "data").touch()
    assert str(tmp_path / "u" / "data") in refused(typed, "serve", tmp_path / "u", "--port", "0")


def test_other_records_are_named_and_not_made(typed: Typed, uploads: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    other = tmp_path / "other.db"
    said = refused(typed, "serve", uploads, "--port", "0", "--state", f"sqlite:///{other}")
    assert str(uploads) in said and str(other) in said and "--state" in said
    assert sorted(tmp_path.rglob("*")) == before
    shutil.copy(uploads / "tusserve.db", tmp_path / "theirs.db")
    at_rest(tmp_path / "second", _no_work)
    shutil.copy(tmp_path / "second" / "tusserve.db", other)
    for name in ("serve", "sweep"):
        said = refused(typed, name, uploads, "--state", f"sqlite:///{other}")
        assert str(uploads) in said and str(other) in said and "--state" in said


def test_a_refused_start_makes_no_folder(typed: Typed, tmp_path: Path) -> None:
    state = f"sqlite:///{tmp_path}/missing/uploads.db"
    assert "missing" in refused(typed, "serve", tmp_path / "u", "--state", state)
    assert "'teleport'" in refused(typed, "serve", tmp_path / "u", "--extensions", "teleport")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_may_have_its_records_elsewhere(typed: Typed, tmp_path: Path) -> None:
    assert "--state" in refused(typed, "sweep", tmp_path)
    assert "--state" not in refused(typed, "sweep", tmp_path / "none")


def test_a_proxy_after_a_space_is_no_folder(
    typed: Typed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for network in ("10.0.0.0/8", "192.0.2.7,::1", "private"):
        for words in (["serve"], ["serve", "u"]):
            said = refused(typed, *words, "--behind-proxy", network, "--port", "0")
            assert f"--behind-proxy={network}" in said
    assert "--behind-proxy=garbage" in refused(typed, "serve", "u", "--behind-proxy", "garbage")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["http://[x", "http://h:99999", "http://h:x", "http://:80", "http://[::1]x"])
def test_addresses_that_cannot_be(url: str, typed: Typed) -> None:
    assert "is not an address" in refused(typed, "serve", "u", "--base-url", url)


def test_an_address_with_the_path_in_it(typed: Typed) -> None:
    for url in ("https://h/files/", "https://h/files"):
        said = refused(typed, "serve", "u", "--base-url", url)
        assert "write https://h" in said and "/files/" in said
    assert "write https://h/a" in refused(
        typed, "serve", "u", "--path", "/b/c", "--base-url", "https://h/a/b/c"
    )


def test_a_busy_port_says_how_to_take_another(typed: Typed, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        said = refused(typed, "serve", tmp_path, "--port", str(taken.getsockname()[1]))
    assert "choose another with --port, or 0 for any" in said


def test_a_wrong_word_points_to_the_help(typed: Typed) -> None:
    assert "tusserve serve --help" in refused(typed, "serve", "u", "--frobnicate")
    assert "tusserve --help" in refused(typed, "frobnicate")


def test_help(typed: Typed) -> None:
    out, _ = typed("-h")
    assert "..." not in out.split("Commands")[1], "a summary is cut"
    assert "Every option can" not in out, "its own have no variables"
    for name in ("serve", "sweep", "ls", "show", "rm"):
        assert "Usage: tusserve" in typed(name, "-h")[0]
    assert "=" in typed("serve", "-h")[0].split("--behind-proxy")[1].split("--cors-origin")[0].split(".")[-2]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("name", ["serve", "ls"])
def test_what_this_user_may_not_read_is_named(name: str, request: pytest.FixtureRequest) -> None:
    place = tempfile.TemporaryDirectory()  # other users may not look into pytest's own
    request.addfinalizer(place.cleanup)
    Path(place.name).chmod(0o711)
    uploads = Path(place.name) / "uploads"
    at_rest(uploads, _no_work)
    program = (
        "import contextlib, io, os, sys; from tusserve.cli import run; import tusserve.cli_serve\n"
        "with contextlib.redirect_stderr(io.StringIO()):\n"
        "    run([sys.argv[1], '/dev/null'])  # imports what the other user may not be able to read\n"
        "os.setgroups([]); os.setuid(65534); sys.exit(run(sys.argv[1:]))"
    )

    def said() -> str:
        done = subprocess.run(
            [sys.executable, "-c", program, name, uploads],
            capture_output=True,
            text=True,
            check=False,
            env=clean_environment(),
        )
        assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
        return done.stderr

    uploads.chmod(0o777)
    (uploads / "store-identity").chmod(0o600)
    (uploads / "tusserve.db").chmod(0o600)
    first = said()
    assert first.count("tusserve.db") == 1 and "for now" not in first, first
    (uploads / "tusserve.db").chmod(0o666)
    assert "store-identity" in said()
    uploads.chmod(0)
    assert str(uploads) in said()


def test_a_name_that_the_terminal_does_not_know_is_escaped(tmp_path: Path) -> None:
    with ServingProcess(
        [*TUSSERVE, "serve", str(tmp_path / "ünï"), "--port", "0"], env={"PYTHONIOENCODING": "ascii"}
    ) as server:
        assert "\\xfcn\\xef" in server.output
        assert server.stop() == 0


def test_a_full_output_is_one_sentence(uploads: Path) -> None:
    for words in (["sweep", uploads], ["ls", uploads], ["--help"], ["--version"]):
        for unbuffered in ("", "1"):
            with Path("/dev/full").open("w") as full:
                done = subprocess.run(
                    [*TUSSERVE, *words],
                    stdout=full,
                    stderr=subprocess.PIPE,
                    text=True,
                    check=False,
                    env=clean_environment(PYTHONUNBUFFERED=unbuffered),
                )
            assert (done.returncode, done.stderr.count("\n")) == (2, 1), (words, done.stderr)
            assert done.stderr.startswith("tusserve: standard output cannot be written to: ")


def test_a_server_serves_though_its_lines_cannot_be_printed(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with Path("/dev/full").open("w") as full:
        server = subprocess.Popen(
            [*TUSSERVE, "serve", tmp_path, "--port", str(port)],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=clean_environment(),
        )
    try:
        assert server.stderr is not None
        assert f"Listening on http://127.0.0.1:{port}/files/" in server.stderr.readline()
        with socket.create_connection(("127.0.0.1", port), timeout=10):
            pass
    finally:
        server.terminate()
        _, log = server.communicate()
    assert server.returncode == 0 and "Traceback" not in log, log


def test_without_the_extra_it_says_what_works() -> None:
    program = "import sys; sys.modules['typer'] = None; sys.path_importer_cache.clear()\n"
    program += "import tusserve.__main__ as m; m._NEEDED = ('no_such_module',); m.main()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (
        done.returncode == 2 and "pip install '.[server]'" in done.stderr and "tusserve[" not in done.stderr
    )
