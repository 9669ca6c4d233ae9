"""The folder of a `FileStorage`: which file is where, and how names in it become durable.

Owns the layout, the reserve of free space, and the translation of the system's errors. Knows no cursor and no
writer. The other modules of the storage find their files through it, in worker threads.

    DIR/data/ab/cd/ID.FENCE-NONCE    the working area: segments, in folders by the first digits of a hash,
    DIR/data/ab/cd/ID.sealed         because hosts may choose ids
    DIR/files/KEY                    what a key names: a second name of the sealed file
    DIR/store-identity               which store the bytes belong to
"""

import errno
import re
from collections.abc import Generator
from contextlib import contextmanager, suppress
from functools import cached_property
from hashlib import sha256
from os.path import samestat
from pathlib import Path
from stat import S_ISDIR
from typing import Final
from urllib.parse import quote, unquote

from tusserve.errors import ConfigError, CursorLost, KeyTaken, StorageFull, StorageUnavailable
from tusserve.storage.file_disk import Disk
from tusserve.storage.file_state import new_nonce

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NAME: Final = re.compile(r"(.+)\.([0-9]+-[0-9a-f]{8}(?:-synced)?|sealed|join-[0-9a-f]{8})")

SEALED: Final = "sealed"
"""The name of the file that several segments were joined in."""


class WorkArea:
    """The files of one storage. `syncs` is False where nothing is ever synced."""

    def __init__(self, root: Path, disk: Disk, *, reserve: int, syncs: bool) -> None:
        self.root, self.disk, self.syncs = root, disk, syncs
        self.data, self.files = root / "data", root / "files"
        self._reserve = reserve
        self._lasting = bytearray(256 + 256 * 256)
        """For each folder of both levels: whether this process saw to it that its own name is durable."""

    @cached_property
    def boot(self) -> str:
        """Under which boot of the machine this process runs."""
        return self.disk.boot()

    def prepare(self) -> None:
        """Make the folders, and see that files can be made. Raises `ConfigError`."""
        try:
            _ = self.boot  # read it here, in a worker thread
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            for folder in (self.data, self.files):
                self.disk.make_folder(folder)
            probe = self.data / f".probe-{new_nonce()}"
            self.disk.close(self.disk.create(probe))
            self.disk.remove(probe)
            if self.syncs:
                self.disk.sync_folder(self.root)
                self.disk.sync_folder(self.root.parent)
        except OSError as error:
            reason = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
            raise ConfigError(f"FileStorage cannot keep uploads in {self.root}: {reason}") from error

    def folder(self, id: str) -> Path:
        """The folder of an upload's files."""
        digits = sha256(id.encode()).hexdigest()
        return self.data / digits[:2] / digits[2:4]

    def path(self, id: str, name: str) -> Path:
        """Where a file of an upload is."""
        return self.folder(id) / f"{quote(id, safe='')}.{name}"

    def names(self, id: str) -> list[str]:
        """The names of all the files of an upload that are there."""
        found = (split_name(name) for name in self.disk.names(self.folder(id)))
        return [each[1] for each in found if each is not None and each[0] == id]

    def create(self, path: Path) -> int:
        """A new file in the working area, with its folders if need be."""
        with suppress(FileNotFoundError):
            return self.disk.create(path)
        for folder in (path.parent.parent, path.parent):  # not `data`: if that is gone, so is the disk
            self.disk.make_folder(folder)
        return self.disk.create(path)

    def sync_folder(self, id: str) -> None:
        """The names of an upload's files reach the medium, and those of the folders that they are in."""
        folder = self.folder(id)
        self.disk.sync_folder(folder)
        first = int(folder.parent.name, 16)
        second = 256 + 256 * first + int(folder.name, 16)
        # Whoever made the folders may have died before it synced them.
        if not self._lasting[second]:
            self.disk.sync_folder(folder.parent)
            self._lasting[second] = True
        if not self._lasting[first]:
            self.disk.sync_folder(self.data)
            self._lasting[first] = True

    def check_room(self, needed: int) -> None:
        """Raises `StorageFull` if `needed` more bytes would reach into the reserve."""
        if self._reserve and self.disk.free_bytes(self.root) - needed < self._reserve:
            raise StorageFull("the disk has only its reserve left")

    def at_least(self, id: str, name: str, size: int) -> None:
        """Raises `CursorLost` if a file of an upload is gone, or shorter than `size`."""
        status = self.disk.status(self.path(id, name))
        if status is None or status.st_size < size:
            raise self.lost()

    def lost(self) -> CursorLost | StorageUnavailable:
        """What to raise where a file is missing. The whole disk may be away, as after an umount: then nothing
        is known of what is on it."""
        return lost() if self._is_folder(self.data) else away()

    def check_there(self) -> None:
        """Raises `StorageUnavailable` if the folder is away altogether."""
        if not self._is_folder(self.data):
            raise away()

    def has_key(self, key: str) -> bool:
        """Whether there is anything under the key."""
        return self.disk.status(self.files / key) is not None

    def sync_file(self, id: str, name: str) -> None:
        """A file of an upload reaches the medium, and so does its name."""
        fd = self.disk.open_to_read(self.path(id, name))
        try:
            self.disk.sync(fd)
        finally:
            self.disk.close(fd)
        self.sync_folder(id)

    def link_key(self, key: str, source: Path) -> None:
        """Give a file the name that the key says. Raises `KeyTaken`, also for a folder that is none: symbolic
        links are not followed out of the storage."""
        *folders, name = key.split("/")
        folder, chain = self.files, [self.files]
        for each in folders:
            folder = folder / each
            if self.disk.status(folder) is None:
                with suppress(FileExistsError):
                    self.disk.make_folder(folder)
            if not self._is_folder(folder):
                raise taken(key)
            chain.append(folder)
        try:
            self.disk.link(source, folder / name)
        except FileExistsError:
            if not self._is_one(folder / name, source):
                raise taken(key) from None
        except FileNotFoundError:
            raise self.lost() from None
        if self.syncs:
            for each_folder in reversed(chain):
                self.disk.sync_folder(each_folder)

    def remove_key(self, key: str, sources: list[Path]) -> None:
        """Remove the key's name if it is one of these files under a second name."""
        path = self.files / key
        if any(self._is_one(path, source) for source in sources):
            self.disk.remove(path)
            if self.syncs:
                self.disk.sync_folder(path.parent)

    def _is_folder(self, path: Path) -> bool:
        status = self.disk.status(path)
        return status is not None and S_ISDIR(status.st_mode)

    def _is_one(self, path: Path, other: Path) -> bool:
        mine, theirs = self.disk.status(path), self.disk.status(other)
        return mine is not None and theirs is not None and samestat(mine, theirs)


def split_name(name: str) -> tuple[str, str] | None:
    """Whose file it is and its name within the upload; None: not a file of the storage."""
    found = _NAME.fullmatch(name)
    return None if found is None else (unquote(found[1]), found[2])


def lost() -> CursorLost:
    """What to raise where bytes are missing."""
    return CursorLost("bytes that were acknowledged are no longer in the storage")


def away() -> StorageUnavailable:
    """What to raise where nothing is as it was left."""
    return StorageUnavailable("the folder of the uploads is not there")


def taken(key: str) -> KeyTaken:
    """What to raise where another upload has the key, or a part of it as a whole."""
    return KeyTaken(f"the key {key!r} is taken by another upload")


@contextmanager
def translated() -> Generator[None, None, None]:
    """Turn the system's errors into the storage's own. Paths stay out of what is said."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFull(f"the disk takes no more bytes: {error.strerror}") from error
        raise StorageUnavailable(f"the disk failed: {error.strerror}") from error
