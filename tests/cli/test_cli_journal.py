"""What is logged of uploads that end, and of requests that are refused: fields for machines, no secrets."""

import json
import logging
from base64 import b64encode
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.raw_http import OCTETS, Connection
from tests.serving_process import tusserve
from tusserve import FileStorage, MemoryStorage, MemoryStore, Rejected, StorageBackend, TusApp, Upload
from tusserve.cli_logging import TextFormatter
from tusserve.testing import ManualClock, TusClient

SECRET = b"a secret that nobody may read in a log"


def about(lines: list[dict[str, Any]], id: str) -> list[dict[str, Any]]:
    return [line for line in lines if line.get("id") == id]


def exchange(address: tuple[str, int]) -> tuple[str, str]:
    """One upload that is completed in two requests, one that is terminated; and requests that are refused."""
    with Connection(address) as connection:
        metadata = ("Upload-Metadata", f"filename {b64encode(SECRET).decode()}")
        secrets = [metadata, ("Authorization", f"Bearer {SECRET.decode()}")]
        ids = []
        for _ in range(2):
            answer = connection.ask("POST", "/files/", [("Upload-Length", str(2 * len(SECRET))), *secrets])
            target = answer.one("location") or ""
            ids.append(target.rpartition("/")[2])
            assert connection.append(target, 0, SECRET).status == 204
        assert connection.append(f"/files/{ids[0]}", 0, SECRET).status == 409
        assert connection.append(f"/files/{ids[0]}", len(SECRET), SECRET).status == 204
        assert connection.ask("DELETE", f"/files/{ids[1]}").status == 204
        assert connection.ask("POST", "/files/", [("Upload-Length", "x"), *OCTETS]).status == 400
        assert connection.ask("GET", f"/files/{ids[0]}", secrets).status in {404, 405}
        assert connection.inspect(f"/files/{ids[1]}").status == 410
    return ids[0], ids[1]


def test_json_lines_of_a_server(tmp_path: Path) -> None:
    with tusserve(tmp_path, "--log-format", "json") as server:
        complete, terminated = exchange(server.address)
        server.stop()
        lines = [json.loads(line) for line in server.log.splitlines()]
        log = server.log
    (done,) = (line for line in about(lines, complete) if line["message"].endswith("is complete"))
    assert (done["level"], done["name"], done["bytes"]) == ("info", "default", 2 * len(SECRET))
    assert 0 < done["seconds"] < 60
    assert "code" not in done
    ended, gone = about(lines, terminated)
    assert (gone["code"], gone["status"]) == ("upload_terminated", 410), "HEAD has no body that says it"
    assert (ended["reason"], ended["bytes"], ended["name"]) == ("CLIENT", len(SECRET), "default")
    refused = [(line.get("id"), line["code"], line["status"]) for line in lines if "status" in line]
    assert (complete, "offset_mismatch", 409) in refused
    assert any(status == 400 and about is None for about, _, status in refused)
    assert SECRET.decode() not in log
    assert b64encode(SECRET).decode() not in log


def test_text_lines_of_a_server(tmp_path: Path) -> None:
    with tusserve(tmp_path) as server:
        complete, terminated = exchange(server.address)
        server.stop()
        lines = server.log.splitlines()
        assert SECRET.decode() not in server.log
    (done,) = (line for line in lines if f"upload {complete} is complete [" in line)
    assert f"[id={complete} name=default bytes={2 * len(SECRET)} seconds=" in done
    (ended,) = (line for line in lines if f"upload {terminated} ends: CLIENT [" in line)
    assert ended.endswith(" reason=CLIENT]")
    assert any(line.endswith(f"[id={complete} code=offset_mismatch status=409]") for line in lines)


def ends(caplog: pytest.LogCaptureFixture) -> list[tuple[object, ...]]:
    """Of each upload that came to its end: id, owner, bytes, seconds, reason."""
    fields = ("id", "owner", "bytes", "seconds", "reason")
    return [
        tuple(getattr(record, field, None) for field in fields)
        for record in caplog.records
        if hasattr(record, "bytes")
    ]


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["memory", "file"])
async def test_every_end_is_one_line(kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tusserve")
    clock = ManualClock()
    storage: StorageBackend = MemoryStorage() if kind == "memory" else FileStorage(tmp_path)
    tus = TusApp("/files", storage=storage, store=MemoryStore(), clock=clock)
    async with TusClient(tus) as client:
        for name, length in (("whole", 4), ("empty", 0), ("idle", 4), ("host", 4)):
            await tus.create(length=length, id=name, owner="ann")
        clock.advance(timedelta(seconds=90))
        await client.append("/files/whole", b"ab")
        await client.append("/files/whole", b"cd", at=2)
        await client.append("/files/whole", b"", at=4)
        await client.offset("/files/empty")
        await tus.terminate("host")
        clock.advance(timedelta(days=8))
        await tus.sweep()
        await tus.sweep()
    assert sorted(ends(caplog), key=str) == sorted(
        [
            ("whole", "ann", 4, 90.0, None),
            ("empty", "ann", 0, 90.0, None),
            ("host", "ann", 0, 90.0, "HOST"),
            ("idle", "ann", 0, 8 * 86400 + 90.0, "EXPIRED"),
        ],
        key=str,
    )


@pytest.mark.anyio
async def test_a_refusal_for_good_is_an_end_with_its_code(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tusserve")

    def refuse(upload: Upload) -> None:
        raise Rejected(422, "not_a_video", "No.")

    tus = TusApp("/files", storage=MemoryStorage(), store=MemoryStore(), on_complete=refuse)
    async with TusClient(tus) as client:
        url = await client.create("/files", length=2)
        assert (await client.append(url, b"ab")).status == 422
    (end,) = (record for record in caplog.records if hasattr(record, "bytes"))
    assert (end.__dict__["code"], end.__dict__["reason"]) == ("not_a_video", "REJECTED")
    (told,) = (record for record in caplog.records if hasattr(record, "status"))
    assert (told.__dict__["code"], told.__dict__["status"]) == ("not_a_video", 422)
    assert told.__dict__["id"] == end.__dict__["id"]


@pytest.mark.parametrize("owner", ["a\n2026 ERROR forged", 'x" id=other', "a b", "tab\t", "\x1b[2J", "=]["])
def test_what_others_chose_is_no_line_or_field_of_its_own(owner: str) -> None:
    made = logging.LogRecord("tusserve", logging.INFO, __file__, 1, "x", None, None)
    made.__dict__.update(id="abc", owner=owner)
    line = TextFormatter().format(made)
    assert "\n" not in line
    assert line.isprintable()
    assert line.endswith(f"[id=abc owner={json.dumps(owner)}]")
