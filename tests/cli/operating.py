"""What tests of operators' commands share: to run one, and to make a folder of uploads without a server."""

import asyncio
import json
import logging
import os
import sqlite3
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tusserve import FileStorage, SQLiteStore, TusApp
from tusserve.cli import run

TUSSERVE = [sys.executable, "-m", "tusserve"]


def clean_environment(**more: str) -> dict[str, str]:
    """This machine's, without settings of its own for tusserve."""
    return {name: value for name, value in os.environ.items() if not name.startswith("TUSSERVE_")} | more


def command(*arguments: str | Path, expected: int = 0, **env: str) -> subprocess.CompletedProcess[str]:
    """The real command in a process of its own."""
    done = subprocess.run(
        [*TUSSERVE, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        env=clean_environment(**env),
    )
    assert done.returncode == expected, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr, done.stderr
    return done


class Typed:
    """The command in this process, which is quicker."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str | Path, expected: int = 0) -> tuple[str, str]:
        """What it said on standard output and on standard error."""
        root, ours = logging.getLogger(), logging.getLogger("tusserve")
        handlers, level, our_level = list(root.handlers), root.level, ours.level
        try:
            code = run(list(map(str, arguments)))
        finally:  # a process that goes on must not keep the logging of one that would have ended
            root.handlers[:], root.level = handlers, level
            ours.setLevel(our_level)
        said = self._capsys.readouterr()
        assert code == expected, f"{arguments}: {code}\n{said.out}\n{said.err}"
        return said.out, said.err

    def json(self, *arguments: str | Path) -> list[dict[str, Any]]:
        """Its lines as objects."""
        return [json.loads(line) for line in self(*arguments, "--json")[0].splitlines()]

    def ids(self, folder: Path, *arguments: str) -> list[str]:
        """The ids that `ls` lists."""
        return [each["id"] for each in self.json("ls", folder, *arguments)]


def at_rest(folder: Path, work: Callable[[TusApp], Awaitable[object]], **settings: Any) -> None:
    """Let `work` happen in an app on the folder, as a server would keep it; then nobody runs."""

    async def live() -> None:
        storage = FileStorage(folder, durability="none")
        store = SQLiteStore(folder / "tusserve.db", durability="none")
        async with TusApp("/files", storage=storage, store=store, sweep_every=None, **settings) as app:
            await work(app)

    asyncio.run(live())


def contents(folder: Path) -> Mapping[str, bytes]:
    """Every file below a folder."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def records(folder: Path) -> list[tuple[object, ...]]:
    """What is kept, to the byte."""
    with sqlite3.connect(folder / "tusserve.db") as connection:
        kept = connection.execute("SELECT * FROM uploads ORDER BY id").fetchall()
    connection.close()
    return kept
