"""A loss of power for a `FileStorage`: a disk that writes down what it is asked, and what is left of it.

Owns the log of changes and the model of a file system that loses what was not synced. Knows nothing of
uploads. Tests give `DiskLog.disk()` to a storage, note in the same log what else was promised when, and have
a `Medium` make the directory as it may be after power was lost behind any entry.
"""

import random
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final, TypeAlias, TypeVar

from tusserve.storage.file_disk import Disk

FOLDER: Final = -1
"""The number that stands for a folder where files have numbers of their own."""


@dataclass(frozen=True, slots=True)
class Named:
    """A name was given to a file or folder, or taken from it (None)."""

    path: Path
    number: int | None


@dataclass(frozen=True, slots=True)
class Written:
    """Bytes were written to a file; None: it was cut off there."""

    number: int
    at: int
    data: bytes | None


@dataclass(frozen=True, slots=True)
class Synced:
    """All that was written to a file before is safe."""

    number: int


@dataclass(frozen=True, slots=True)
class FolderSynced:
    """All names that were changed in a folder before are safe."""

    path: Path


@dataclass(frozen=True, slots=True)
class Said:
    """Something else that happened in between, of which the disk knows nothing."""

    what: object


Change = TypeVar("Change")
Event: TypeAlias = Named | Written | Synced | FolderSynced | Said


class Loss(StrEnum):
    """What a loss of power makes of that which was not synced."""

    GONE = "names and bytes are gone"
    KEPT = "nothing is gone"
    NO_BYTES = "names are there, bytes are gone"
    ZEROS = "names and lengths are there, bytes are zeros"
    NO_NAMES = "bytes are there, names are gone"
    MIXED = "some is gone"


class DiskLog:
    """What disks were asked to change, in order, and what else was said in between."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._lock = threading.Lock()
        self._numbers: dict[Path, int] = {}
        self._next = 0

    def disk(self) -> "LoggedDisk":
        """A disk that does all it is asked, and writes it down here."""
        return LoggedDisk(self)

    def say(self, what: object) -> None:
        """Note something between the changes, such as a commit that was made now."""
        with self._lock:
            self.events.append(Said(what))

    @contextmanager
    def noting(self) -> Iterator[list[Event]]:
        """One change at a time: what is appended in the block is noted if the change was made."""
        with self._lock:
            events: list[Event] = []
            yield events
            self.events += events

    def made(self, path: Path) -> Named:
        """A new file has this name."""
        self._next += 1
        self._numbers[path] = self._next
        return Named(path, self._next)

    def linked(self, source: Path, target: Path) -> Named:
        """A file has one more name."""
        self._numbers[target] = self._numbers[source]
        return Named(target, self._numbers[target])

    def removed(self, path: Path) -> Named:
        """A name is gone."""
        self._numbers.pop(path, None)
        return Named(path, None)

    def number(self, path: Path) -> int:
        """Which file has this name."""
        return self._numbers[path]


class LoggedDisk(Disk):
    """See `DiskLog`. It knows only files that were made through the same log."""

    def __init__(self, log: DiskLog) -> None:
        self._log = log
        self._opened: dict[int, int] = {}

    def create(self, path: Path) -> int:
        with self._log.noting() as events:
            fd = super().create(path)
            events.append(self._log.made(path))
            self._opened[fd] = self._log.number(path)
            return fd

    def open(self, path: Path) -> int:
        with self._log.noting():
            fd = super().open(path)
            self._opened[fd] = self._log.number(path)
            return fd

    def open_to_read(self, path: Path) -> int:
        with self._log.noting():
            fd = super().open_to_read(path)
            self._opened[fd] = self._log.number(path)
            return fd

    def close(self, fd: int) -> None:
        with self._log.noting():
            del self._opened[fd]
            super().close(fd)

    def write(self, fd: int, data: bytes, at: int) -> None:
        with self._log.noting() as events:
            super().write(fd, data, at)
            events.append(Written(self._opened[fd], at, bytes(data)))

    def truncate(self, fd: int, size: int) -> None:
        with self._log.noting() as events:
            super().truncate(fd, size)
            events.append(Written(self._opened[fd], size, None))

    def copy(self, source: int, target: int, size: int, at: int) -> int:
        with self._log.noting() as events:
            copied = _PLAIN.copy(source, target, size, at)
            events.append(Written(self._opened[target], at, self.read(target, copied, at)))
            return copied

    def sync(self, fd: int) -> None:
        with self._log.noting() as events:
            events.append(Synced(self._opened[fd]))

    def sync_folder(self, path: Path) -> None:
        with self._log.noting() as events:
            events.append(FolderSynced(path))

    def make_folder(self, path: Path) -> None:
        with self._log.noting() as events:
            is_new = not path.exists()
            super().make_folder(path)
            if is_new:
                events.append(Named(path, FOLDER))

    def link(self, source: Path, target: Path) -> None:
        with self._log.noting() as events:
            super().link(source, target)
            events.append(self._log.linked(source, target))

    def remove(self, path: Path) -> None:
        with self._log.noting() as events:
            is_there = path.exists()
            super().remove(path)
            if is_there:
                events.append(self._log.removed(path))


_PLAIN: Final = Disk()
"""Copies for a `LoggedDisk`: there it is one change."""


class AfterTheNextBoot(Disk):
    """The machine was started again. What is made of that on the disk need not last."""

    def boot(self) -> str:
        """Not the one under which anything was written."""
        return "another"

    def sync(self, fd: int) -> None:
        """Nothing."""

    def sync_folder(self, path: Path) -> None:
        """Nothing."""


@dataclass(slots=True)
class _File:
    safe: bytearray = field(default_factory=bytearray)
    since: list[Written] = field(default_factory=list)


def _apply(content: bytearray, change: Written) -> None:
    if change.data is None:
        del content[change.at :]
        content.extend(bytes(max(0, change.at - len(content))))
    else:
        content.extend(bytes(max(0, change.at - len(content))))
        content[change.at : change.at + len(change.data)] = change.data


class Medium:
    """What a file system knows for certain, and what it still has in memory, behind some entries of a log."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._files: dict[int, _File] = {}
        self._names: dict[Path, int] = {}
        self._since: list[Named] = []

    def see(self, event: Event) -> None:
        """The next entry of the log."""
        match event:
            case Named():
                self._since.append(event)
            case Written():
                self._files.setdefault(event.number, _File()).since.append(event)
            case Synced(number):
                file = self._files.setdefault(number, _File())
                for change in file.since:
                    _apply(file.safe, change)
                file.since.clear()
            case FolderSynced(path):
                for name in self._since:
                    if name.path.parent == path:
                        self._rename(self._names, name)
                self._since = [name for name in self._since if name.path.parent != path]
            case Said():
                pass

    def rebuild(self, target: Path, loss: Loss, choice: random.Random) -> None:
        """Make in `target`, an empty folder, what may be left of the log's root if power is lost now."""
        names = dict(self._names)
        for name in self._survivors(self._since, loss not in (Loss.GONE, Loss.NO_NAMES), loss, choice):
            self._rename(names, name)
        made: dict[int, Path] = {}
        for path in sorted(names):  # folders come before what is in them
            place = target / path.relative_to(self._root)
            number = names[path]
            if not place.parent.is_dir():
                continue
            if number == FOLDER:
                place.mkdir(mode=0o700)
            elif number in made:
                place.hardlink_to(made[number])
            else:
                place.write_bytes(self._content(number, loss, choice))
                made[number] = place

    def _content(self, number: int, loss: Loss, choice: random.Random) -> bytes:
        file = self._files.get(number, _File())
        content = bytearray(file.safe)
        for change in self._survivors(file.since, loss not in (Loss.GONE, Loss.NO_BYTES), loss, choice):
            if loss is Loss.ZEROS and change.data is not None:
                change = Written(number, change.at, bytes(len(change.data)))
            _apply(content, change)
        return bytes(content)

    @staticmethod
    def _survivors(changes: Sequence[Change], kept: bool, loss: Loss, choice: random.Random) -> list[Change]:
        return [each for each in changes if (choice.random() < 0.5 if loss is Loss.MIXED else kept)]

    @staticmethod
    def _rename(names: dict[Path, int], name: Named) -> None:
        if name.number is None:
            names.pop(name.path, None)
        else:
            names[name.path] = name.number
