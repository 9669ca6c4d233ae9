"""Disks that are full, files that are gone, processes that stand still: what is told, and what is kept."""

import contextlib
import hashlib
import os
import random
import subprocess
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.blackbox.target import Target, code_of, files_of, stored_at
from tests.raw_http import Connection
from tests.serving_process import ServingProcess, tusserve

MIB = 1024 * 1024
RESERVE = 64 * MIB
"""What a disk keeps for DELETE and for the records."""


@pytest.fixture
def small_disk(tmp_path: Path) -> Generator[Path]:
    """A disk of its own of 96 MiB."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a disk that can be filled")
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", str(place)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no disk that can be filled may be mounted here: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def free_bytes(place: Path) -> int:
    status = os.statvfs(place)
    return status.f_bavail * status.f_frsize


def upload_id(path: str) -> str:
    return path.rsplit("/", 1)[-1]


def test_a_full_disk_keeps_what_it_took_and_frees_what_is_deleted(small_disk: Path) -> None:
    folder = small_disk / "uploads"
    data = random.Random(3).randbytes(48 * MIB)
    with tusserve(folder) as server:
        target = Target(server.url, folder)
        path = target.create(len(data))
        with target.connected() as connection:
            connection.begin_append(path, 0, len(data))
            connection.send_what_is_taken(data)
            answer = connection.answer("PATCH")
        assert (answer.status, code_of(answer)) == (507, "storage_full")
        kept = answer.offset
        assert 0 < kept < len(data)
        assert free_bytes(small_disk) > RESERVE - 2 * MIB, "the reserve was used up"
        assert target.inspect(path).offset == kept
        with target.connected() as connection:
            again = connection.append(path, kept, data[kept : kept + MIB])
            assert (again.status, again.offset) == (507, kept)
        # Other uploads are refused as well, and their bytes are not lost in silence.
        other = target.create(5 * MIB)
        with target.connected() as connection:
            assert connection.append(other, 0, bytes(5 * MIB)).status == 507
        with target.connected() as connection:
            assert connection.ask("DELETE", other).status == 204
            assert connection.ask("DELETE", path).status == 204
            assert connection.inspect(path).status == 410
        assert not files_of(folder, upload_id(path))
        small = target.create(5 * MIB)
        target.append(small, 0, data[: 5 * MIB])
        target.check_bytes(small, data[: 5 * MIB])
        assert "Traceback" in server.log  # it was told to the operator, with its cause


def test_a_disk_that_others_filled_to_the_last_byte(small_disk: Path) -> None:
    """Not even a record can be written. Nothing is acknowledged that is not there; then it goes on."""
    folder = small_disk / "uploads"
    data = random.Random(4).randbytes(4 * MIB)
    with tusserve(folder) as server:
        target = Target(server.url, folder)
        path = target.create(len(data))
        target.append(path, 0, data[:MIB])
        filler = small_disk / "filler"
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(64 * 1024))
        assert free_bytes(small_disk) == 0
        assert target.inspect(path).offset == MIB
        with target.connected() as connection:
            answer = connection.append(path, MIB, data[MIB:])
            assert answer.status in (503, 507), answer
            assert connection.inspect(path).offset == MIB if not answer.closes else True
        with target.connected() as connection:
            assert connection.ask("POST", target.path, [("Upload-Length", "1")]).status in (201, 503, 507)
        assert target.inspect(path).offset == MIB
        filler.unlink()
        target.append(path, MIB, data[MIB:])
        target.check_bytes(path, data)


@pytest.mark.parametrize("how", ["removed", "shortened"])
def test_bytes_that_are_gone_are_lost_and_never_made_up(how: str, tmp_path: Path) -> None:
    with tusserve(tmp_path) as server:
        target = Target(server.url, tmp_path)
        path = target.create(10)
        target.append(path, 0, b"12345")
        file = files_of(tmp_path, upload_id(path))[0]
        if how == "removed":
            file.unlink()
        else:
            os.truncate(file, 3)
        with target.connected() as connection:
            answer = connection.append(path, 5, b"67890")
        assert (answer.status, code_of(answer)) == (410, "upload_lost")
        assert answer.one("upload-offset") is None
        assert target.inspect(path).status == 410
        with target.connected() as connection:
            assert code_of(connection.append(path, 5, b"67890")) == "upload_lost"
        assert not files_of(tmp_path, upload_id(path))


def begun(server: ServingProcess, path: str, data: bytes, length: int) -> Connection:
    """A client that sent `data`, which the server has, and is silent now."""
    stuck = Connection(server.address)
    stuck.begin_append(path, 0, length)
    stuck.send(data)
    target = Target(server.url)
    while target.inspect(path).offset < len(data):
        pass
    return stuck


def test_a_silent_client_of_one_process_makes_way_for_another_process(tmp_path: Path) -> None:
    data = random.Random(6).randbytes(3 * MIB)
    with tusserve(tmp_path) as first, tusserve(tmp_path) as second:
        path = Target(first.url).create(len(data))
        other = Target(second.url, tmp_path)
        with begun(first, path, data[:MIB], len(data)) as stuck:
            assert other.inspect(path).offset == MIB
            other.append(path, MIB, data[MIB:])
            assert stuck.answer("PATCH").status == 423
        other.check_bytes(path, data)
        assert Target(first.url).inspect(path).offset == len(data)


def test_a_process_that_stood_still_wakes_up_too_late_and_harms_nobody(tmp_path: Path) -> None:
    """Its lease was taken over; what it then writes and commits must not touch the bytes of its successor."""
    data = random.Random(7).randbytes(8 * MIB)
    with tusserve(tmp_path) as first, tusserve(tmp_path) as second:
        path = Target(first.url).create(len(data))
        other = Target(second.url, tmp_path)
        with begun(first, path, data[:MIB], len(data)) as stuck:
            first.freeze()
            # On their way into the process that stands still: written as soon as it wakes.
            stuck.socket.settimeout(1)
            with contextlib.suppress(TimeoutError):
                stuck.send(b"\xff" * MIB)
            stuck.socket.settimeout(30)
            assert other.inspect(path).offset == MIB
            other.append(path, MIB, data[MIB : 4 * MIB])
            first.thaw()
            assert stuck.answer("PATCH").status == 423
            assert Target(first.url).inspect(path).offset == 4 * MIB
            Target(first.url).append(path, 4 * MIB, data[4 * MIB :])
        other.check_bytes(path, data)


def test_a_process_that_stood_still_wakes_up_after_the_end(tmp_path: Path) -> None:
    """The same with an upload that is complete by then, and with one that is deleted."""
    data = random.Random(8).randbytes(2 * MIB)
    with tusserve(tmp_path) as first, tusserve(tmp_path) as second:
        sealed, deleted = (Target(first.url).create(len(data)) for _ in range(2))
        other = Target(second.url, tmp_path)
        with (
            begun(first, sealed, data[:MIB], len(data)) as stuck,
            begun(first, deleted, data[:MIB], len(data)) as stuck_too,
        ):
            first.freeze()
            for each in (stuck, stuck_too):
                each.socket.settimeout(1)
                with contextlib.suppress(TimeoutError):
                    each.send(b"\xff" * MIB)
                each.socket.settimeout(30)
            other.append(sealed, MIB, data[MIB:])
            with other.connected() as connection:
                assert connection.ask("DELETE", deleted).status == 204
            first.thaw()
            # It may meet the missing file before it hears that its lease is gone.
            assert stuck.answer("PATCH").status in (410, 423, 503)
            assert stuck_too.answer("PATCH").status in (410, 423, 503)
        assert other.inspect(sealed).offset == len(data)
        digest = hashlib.sha256(stored_at(tmp_path, upload_id(sealed)).read_bytes()).digest()
        assert digest == hashlib.sha256(data).digest()
        assert other.inspect(deleted).status == 410


def test_a_killed_process_s_uploads_go_on_in_the_other_at_once(tmp_path: Path) -> None:
    data = random.Random(9).randbytes(2 * MIB)
    with tusserve(tmp_path) as first, tusserve(tmp_path) as second:
        path = Target(first.url).create(len(data))
        other = Target(second.url, tmp_path)
        with begun(first, path, data[:MIB], len(data)):
            first.kill()
            assert other.inspect(path).offset == MIB
            other.append(path, MIB, data[MIB:])
        other.check_bytes(path, data)
