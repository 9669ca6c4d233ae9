"""`tusserve ls`, `show` and `rm`: what operators see and do, with the server running and without."""

import asyncio
import functools
import json
import os
import pty
import select
import sqlite3
import subprocess
import time
from base64 import b64encode
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest

from tests.cli.operating import TUSSERVE, Typed, at_rest, clean_environment, command, contents, records
from tests.raw_http import OCTETS, Connection
from tests.serving_process import ServingProcess, tusserve
from tusserve import Expiry, Reason, TusApp, Upload, cli_look
from tusserve.stores.sqlite_schema import APPLICATION_ID, is_store
from tusserve.testing import TusClient

ESCAPES: Final = "a\x1b[2Jb\u202ec\n.txt"


@pytest.fixture
def typed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Typed:
    for name in [name for name in os.environ if name.startswith("TUSSERVE_")]:
        monkeypatch.delenv(name)
    return Typed(capsys)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServingProcess]:
    with tusserve(tmp_path / "up") as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "up"


def named(filename: str) -> tuple[str, str]:
    return "Upload-Metadata", f"filename {b64encode(filename.encode()).decode()}"


def upload(connection: Connection, length: int, data: bytes, filename: str = "a.txt") -> str:
    """A new upload with its first bytes; its id."""
    answer = connection.ask(
        "POST", "/files/", [("Upload-Length", str(length)), *OCTETS, named(filename)], data
    )
    assert answer.status == 201, answer
    return (answer.one("location") or "").rpartition("/")[2]


# ---- ls


def test_ls_beside_a_running_server_and_at_rest(server: ServingProcess, folder: Path, typed: Typed) -> None:
    assert typed.json("ls", folder) == []
    with Connection(server.address) as connection:
        whole = upload(connection, 5, b"hello", "whole.txt")
        part = upload(connection, 2048, b"x" * 1500, "part.bin")
        gone = upload(connection, 5, b"abc")
        assert connection.ask("DELETE", f"/files/{gone}").status == 204
    for _ in ("running", "killed"):
        found = {each["id"]: each for each in typed.json("ls", folder)}
        assert list(found) == sorted([whole, part])
        assert found[whole]["state"] == "COMPLETE"
        assert (found[whole]["percent"], found[whole]["expires_at"]) == (100, None)
        assert found[part]["state"] == "RECEIVING"
        assert (found[part]["offset"], found[part]["length"], found[part]["percent"]) == (1500, 2048, 73)
        assert found[part]["filename"] == "part.bin"
        assert found[part]["expires_at"] > found[part]["created_at"]
        assert found[part]["rate"] <= 1500 * 1000
        assert typed.ids(folder, "--only", "gone") == [gone]
        assert typed.ids(folder, "--only", "Receiving,GONE") == sorted([part, gone])
        heading, *lines = typed("ls", folder)[0].splitlines()
        assert heading.split()[:3] == ["ID", "STATE", "DONE"]
        (line,) = (line for line in lines if line.startswith(part))
        assert line.split()[1:7] == ["RECEIVING", "73%", "1.5", "KiB", "2.0", "KiB"]
        assert line.endswith("part.bin")
        server.kill()


def test_ls_with_the_records_elsewhere(tmp_path: Path) -> None:
    """The real command, with the option and the variable that `serve` has."""
    state = f"sqlite:///{tmp_path}/records.db"
    with tusserve(tmp_path / "up", "--state", state) as server, Connection(server.address) as connection:
        made = upload(connection, 5, b"hel")
        for done in (
            command("ls", tmp_path / "up", "--state", state, "--json"),
            command("ls", tmp_path / "up", "--json", TUSSERVE_STATE=state),
        ):
            assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == [made]
        assert (
            json.loads(command("show", tmp_path / "up", made, "--state", state, "--json").stdout)["id"]
            == made
        )
        assert command("rm", tmp_path / "up", made, "--state", state).stdout == f"ended {made}\n"
    assert not (tmp_path / "up" / "tusserve.db").exists()


def test_ls_narrows_and_pages(folder: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fill(app: TusApp) -> None:
        for number in range(20):
            await app.create(length=10, id=f"u{number:02}", owner="ann" if number % 2 else "bob")

    async def another(app: TusApp) -> None:
        await app.create(length=10, id="other")

    at_rest(folder, fill)
    at_rest(folder, another, name="videos")
    every = [f"u{number:02}" for number in range(20)]
    for page in (1, 7, 10, 20, 500):
        monkeypatch.setattr(cli_look, "PAGE", page)
        assert typed.ids(folder) == every
        assert typed.ids(folder, "--owner", "ann") == every[1::2]
        assert typed.ids(folder, "--owner", "nobody") == []
        assert typed.ids(folder, "--only", "receiving,complete", "--after", "u17") == ["u18", "u19"]
    assert typed.ids(folder, "--name", "videos") == ["other"]
    out, err = typed("ls", folder, "--limit", "7", "--json")
    assert [json.loads(line)["id"] for line in out.splitlines()] == every[:7]
    assert "--after u06" in err
    assert typed("ls", folder, "--limit", "20", "--json")[1] == "", "there are no more"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["ls", "x", "--only", "done"], "receiving, waiting, finishing, complete, ending, gone"),
        (["ls", "x", "--limit", "0"], "'0' is not a number of uploads"),
        (["ls", "x", "--limit", "many"], "TUSSERVE_LIMIT"),
        (["ls", "x", "--state", "complete"], "--only"),
        (["show", "x"], "ID"),
        (["rm", "x"], "ID"),
    ],
    ids=" ".join,
)
def test_a_wrong_word_is_one_sentence(arguments: list[str], sentence: str, typed: Typed) -> None:
    out, err = typed(*arguments, expected=2)
    assert out == ""
    assert sentence in err
    assert err.count("\n") == 1


def test_what_others_wrote_does_not_steer_the_terminal(folder: Path, typed: Typed) -> None:
    async def fill(app: TusApp) -> None:
        await app.create(length=10, id="odd", owner="\x1b]0;owner\x07", metadata={"filename": ESCAPES})

    at_rest(folder, fill)
    for words in (["ls", str(folder)], ["show", str(folder), "odd"]):
        out, _ = typed(*words)
        assert all(letter.isprintable() or letter == "\n" for letter in out), out
    assert typed("ls", folder)[0].count("\n") == 2, "a name is no line of its own"
    (told,) = typed.json("ls", folder)
    assert (told["filename"], told["owner"]) == (ESCAPES, "\x1b]0;owner\x07"), "JSON says what is"


def test_a_name_that_standard_output_cannot_say(folder: Path) -> None:
    async def fill(app: TusApp) -> None:
        await app.create(length=10, id="odd", metadata={"filename": "résumé.txt"})

    at_rest(folder, fill)
    assert "r\\xe9sum\\xe9.txt" in command("ls", folder, PYTHONIOENCODING="ascii").stdout


def test_a_pipe_that_is_closed_is_no_traceback(folder: Path) -> None:
    async def fill(app: TusApp) -> None:
        for number in range(1500):
            await app.create(length=10, id=f"u{number:04}")

    at_rest(folder, fill)
    with subprocess.Popen(
        [*TUSSERVE, "ls", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=clean_environment(),
    ) as listing:
        assert listing.stdout is not None
        assert listing.stderr is not None
        assert listing.stdout.readline().startswith(b"ID ")
        listing.stdout.close()
        assert listing.stderr.read() == b""


# ---- show


def test_show_tells_everything(server: ServingProcess, folder: Path, typed: Typed) -> None:
    with Connection(server.address) as connection:
        whole = upload(connection, 5, b"hello")
        part = upload(connection, 100, b"abc")
        gone = upload(connection, 100, b"abc")
        connection.ask("DELETE", f"/files/{gone}")
        (told,) = typed.json("show", folder, whole)
        assert Path(told["path"]).read_bytes() == b"hello"
        assert told["metadata"] == {"filename": "a.txt"}
        (told,) = typed.json("show", folder, part)
        assert (told["offset"], told["held"], told["path"], told["reason"]) == (3, False, None, None)
        connection.begin_append(f"/files/{part}", 3, 97)
        connection.send(b"d")
        give_up = time.monotonic() + 20
        while not typed.json("show", folder, part)[0]["held"]:
            assert time.monotonic() < give_up
    (told,) = typed.json("show", folder, gone)
    assert (told["state"], told["reason"], told["percent"]) == ("GONE", "CLIENT", 3)
    out, _ = typed("show", folder, whole)
    assert [line.split()[0] for line in out.splitlines()] == list(told)
    assert f"{folder}/data/" in out
    for unknown in ("nothing", "../tusserve.db", "\x1b[2J"):
        out, err = typed("show", folder, unknown, expected=1)
        assert out == ""
        assert err.startswith("tusserve: there is no upload ")
        assert "\x1b" not in err


# ---- rm


def test_rm_asks_a_live_writer(server: ServingProcess, folder: Path, typed: Typed) -> None:
    with Connection(server.address) as writer, Connection(server.address) as other:
        made = upload(other, 100, b"abc")
        writer.begin_append(f"/files/{made}", 3, 97)
        writer.send(b"0123456789")
        give_up = time.monotonic() + 20
        while other.inspect(f"/files/{made}").offset < 13:  # each HEAD asks for a checkpoint
            assert time.monotonic() < give_up
        assert typed("rm", folder, made) == (f"ended {made}\n", "")
        writer.send(b"x" * 87)
        assert writer.answer("PATCH").status == 410
        assert other.inspect(f"/files/{made}").status == 410
    assert not list((folder / "data").rglob(f"{made}*"))
    assert typed.json("show", folder, made)[0]["reason"] == "HOST"


def test_rm_takes_over_from_a_server_that_stands_still(
    server: ServingProcess, folder: Path, typed: Typed
) -> None:
    with Connection(server.address) as connection:
        made = upload(connection, 100, b"abc")
        connection.begin_append(f"/files/{made}", 3, 97)
        connection.send(b"0123456789")
        give_up = time.monotonic() + 20
        while not typed.json("show", folder, made)[0]["held"]:
            assert time.monotonic() < give_up
        server.freeze()
        assert typed("rm", folder, made) == (f"ended {made}\n", "")
        server.thaw()
        connection.send(b"x" * 87)
        assert connection.answer("PATCH").status in {410, 423}
        assert connection.inspect(f"/files/{made}").status == 410
    assert not list((folder / "data").rglob(f"{made}*"))


def test_rm_of_several_says_what_became_of_each(server: ServingProcess, folder: Path, typed: Typed) -> None:
    with Connection(server.address) as connection:
        whole, part = upload(connection, 5, b"hello"), upload(connection, 100, b"abc")
        out, err = typed("rm", folder, whole, "nothing", part, whole, expected=1)
        assert out.splitlines() == [f"ended {whole}", f"ended {part}"]
        assert err == f"tusserve: there is no upload nothing in {folder}\n"
        assert connection.inspect(f"/files/{whole}").status == 410
    assert typed.ids(folder) == []
    assert not [path for path in (folder / "data").rglob("*") if path.is_file()]
    out, err = typed("rm", folder, whole, expected=1)
    assert (out, err) == ("", f"tusserve: upload {whole} has ended already\n")


def test_rm_at_rest_and_of_any_name(folder: Path, typed: Typed) -> None:
    for name in ("default", "videos"):
        at_rest(folder, functools.partial(TusApp.create, length=10, id=name), name=name)
    assert typed("rm", folder, "videos", "default")[0].splitlines() == ["ended videos", "ended default"]


def test_rm_leaves_hooks_to_their_application(folder: Path, typed: Typed) -> None:
    told: list[tuple[str, Reason]] = []

    def ended(upload: Upload, reason: Reason) -> None:
        told.append((upload.id, reason))

    at_rest(folder, lambda app: app.create(length=10, id="gated"), on_terminate=ended)
    before = records(folder)
    out, err = typed("rm", folder, "gated", "--yes", expected=1)
    assert out == ""
    assert "hooks" in err
    assert "--force" in err
    assert records(folder) == before
    out, err = typed("rm", folder, "gated", "--force")
    assert out.startswith("ends gated: its application ")
    assert typed.json("show", folder, "gated")[0]["state"] == "ENDING"
    assert told == [], "nobody but the application can tell its hook"
    at_rest(folder, lambda app: app.sweep(), on_terminate=ended)
    assert told == [("gated", Reason.HOST)]
    assert typed.json("show", folder, "gated")[0]["state"] == "GONE"


def test_rm_of_what_is_being_finished_elsewhere(folder: Path, typed: Typed) -> None:
    def fails(upload: Upload) -> None:
        raise OSError("not now")

    async def fill(app: TusApp) -> None:
        async with TusClient(app) as client:
            url = await client.create("/files", length=2, metadata={"filename": "x"})
            assert (await client.append(url, b"ab")).status == 503

    at_rest(folder, fill, on_complete=fails)
    (made,) = typed.ids(folder, "--only", "finishing")
    assert "cannot be ended now" in typed("rm", folder, made, "--force", expected=1)[1]
    assert typed.ids(folder) == [made]


def at_terminal(arguments: list[str], answer: bytes) -> tuple[int, str]:
    """The real command on a terminal, and one who answers; the exit code and all that was to be seen."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*TUSSERVE, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, env=clean_environment()
    ) as process:
        os.close(theirs)
        seen = b""
        answered = False
        while select.select([ours], [], [], 30)[0]:
            try:
                piece = os.read(ours, 4096)
            except OSError:  # Linux: the other side is closed
                break
            if not piece:
                break
            seen += piece
            if b"[y/N]" in seen and not answered:
                answered = True
                os.write(ours, answer)
        os.close(ours)
        return process.wait(30), seen.decode()


def test_rm_asks_at_a_terminal(folder: Path, typed: Typed) -> None:
    async def fill(app: TusApp) -> None:
        for name in ("one", "two", "three"):
            await app.create(length=2000, id=name, metadata={"filename": f"{name}.mov"})

    at_rest(folder, fill)
    code, seen = at_terminal(["rm", str(folder), "one", "two"], b"n\n")
    assert code == 1
    assert "one, one.mov: RECEIVING, 0 B of 2.0 KiB" in seen
    assert "End these 2 uploads and remove the bytes?" in seen
    assert len(typed.ids(folder)) == 3
    code, seen = at_terminal(["rm", str(folder), "one"], b"\x04")  # end of input
    assert code == 130
    assert len(typed.ids(folder)) == 3
    assert at_terminal(["rm", str(folder), "one", "two"], b"y\n")[0] == 0
    assert typed.ids(folder) == ["three"]
    code, seen = at_terminal(["rm", str(folder), "three", "--yes"], b"")
    assert (code, seen.strip()) == (0, "ended three")


# ---- folders that are none


COMMANDS: Final = (
    ["ls"],
    ["show", "abc"],
    ["rm", "abc"],
    ["rm", "abc", "--yes"],
    ["sweep"],
    ["sweep", "--dry-run"],
)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_folder_that_is_none_does_not_become_one(words: list[str], tmp_path: Path, typed: Typed) -> None:
    first, *rest = words
    real, bare, text, empty, foreign, stray = (
        tmp_path / name for name in ("real", "bare", "text", "empty", "foreign", "stray")
    )
    at_rest(real, lambda app: app.create(length=10, id="abc"))
    at_rest(stray, lambda app: app.create(length=10, id="abc"))
    (stray / "store-identity").unlink()
    for each in (bare, text, empty, foreign):
        each.mkdir()
    (text / "tusserve.db").write_text("no database")
    (empty / "tusserve.db").touch()
    connection = sqlite3.connect(foreign / "tusserve.db")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    before = contents(tmp_path)
    for folder, more in (
        (tmp_path / "missing", []),
        (text / "tusserve.db", []),
        (bare, []),
        (text, []),
        (empty, []),
        (foreign, []),
        (stray, []),
        (bare, ["--state", f"sqlite:///{real}/tusserve.db"]),
        (tmp_path / "missing", ["--state", f"sqlite:///{real}/tusserve.db"]),
        (real, ["--state", f"sqlite:///{stray}/tusserve.db"]),
        (real, ["--state", f"sqlite:///{tmp_path}/missing.db"]),
    ):
        out, err = typed(first, folder, *rest, *more, expected=2)
        assert out == ""
        assert err.startswith("tusserve: ")
        assert err.count("\n") == 1
    after = contents(tmp_path)
    assert after == before
    assert not (tmp_path / "missing").exists()


def test_a_store_that_was_made_just_now_is_one(tmp_path: Path) -> None:
    """While its server runs, all that says whose file it is may be in the log beside it."""
    path = tmp_path / "tusserve.db"

    async def look(app: TusApp) -> None:
        if int.from_bytes(path.read_bytes()[68:72], "big") == APPLICATION_ID:
            pytest.fail("the case that this test is about did not come about")
        assert is_store(path)

    at_rest(tmp_path, look)
    assert is_store(path)


# ---- sweep --dry-run


def test_a_dry_run_changes_nothing_beside_a_server_and_at_rest(tmp_path: Path, typed: Typed) -> None:
    async def fill(app: TusApp) -> None:
        await app.create(length=10, id="old", expires_in=timedelta(milliseconds=1))
        await app.create(length=0, id="empty")

    at_rest(tmp_path, fill, expiry=Expiry())
    expected = ["would be expired: 1", "would be retried: 1", "would be failed: 0"]

    def dry_run() -> None:
        data = contents(tmp_path / "data")
        kept = records(tmp_path)
        out, _ = typed("sweep", tmp_path, "--dry-run")
        assert set(expected) <= set(out.splitlines()), out
        assert records(tmp_path) == kept
        assert contents(tmp_path / "data") == data

    dry_run()

    async def beside(app: TusApp) -> None:
        await asyncio.to_thread(dry_run)

    at_rest(tmp_path, beside)
    assert typed("sweep", tmp_path)[0].splitlines()[:2] == ["expired: 1", "completed: 1"]


# ---- completion


def complete(words: str) -> list[str]:
    """What a shell is offered for the last of these words."""
    done = command(_TUSSERVE_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=str(words.count(" ")))
    return done.stdout.split()


def test_a_shell_completes_commands_and_ids(folder: Path) -> None:
    async def fill(app: TusApp) -> None:
        for name in ("aa1", "ab1", "ab2", "ac1"):
            await app.create(length=2, id=name)
        await app.terminate("ab2")

    at_rest(folder, fill)
    assert complete("tusserve s") == ["serve", "sweep", "show"]
    assert complete(f"tusserve show {folder} ") == ["aa1", "ab1", "ac1"]
    assert complete(f"tusserve rm {folder} aa1 ab") == ["ab1"]
    nowhere = folder / "nowhere"
    assert complete(f"tusserve rm {nowhere} ") == []
    assert not nowhere.exists()


def test_completion_can_be_installed(tmp_path: Path) -> None:
    script = command(_TUSSERVE_COMPLETE="source_bash").stdout
    assert "_TUSSERVE_COMPLETE=complete_bash" in script
    assert "complete " in script
