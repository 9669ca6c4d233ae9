"""What a `FileStorage` asks of the operating system, and what it does where a system lacks it.

Owns every call that reads or changes a file. Knows nothing of uploads. Everything else in the storage goes
through one `Disk`, so that a test may stand between: to log, to fail, to lose power.
"""

import errno
import os
import shutil
import stat
from pathlib import Path
from typing import Final

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_FLAGS: Final = (
    getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)  # Windows
)
_COPY: Final = 1 << 20
_NO_COPY: Final = frozenset({errno.ENOSYS, errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM})
"""How systems say that they cannot copy from file to file (`copy_file_range`), this one or at all."""
_NO_FULL_SYNC: Final = frozenset({errno.EINVAL, errno.ENOTSUP, errno.ENOTTY})
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class Disk:
    """The calls, each as short as it can be. They block; they raise `OSError`."""

    def create(self, path: Path) -> int:
        """A new file, 0600, for reading and writing."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _FLAGS, 0o600)

    def open(self, path: Path) -> int:
        """An existing file for reading and writing, one that was protected too."""
        try:
            fd = os.open(path, os.O_RDWR | _FLAGS)
        except PermissionError:
            path.chmod(0o600)
            return os.open(path, os.O_RDWR | _FLAGS)
        if is_protected(os.fstat(fd)):  # who may do anything, may open it as it is
            path.chmod(0o600)
        return fd

    def open_to_read(self, path: Path) -> int:
        """An existing file, for reading only."""
        return os.open(path, os.O_RDONLY | _FLAGS)

    def close(self, fd: int) -> None:
        """Give the file back. Its number may be another file's at once."""
        os.close(fd)

    def size(self, fd: int) -> int:
        """How long the open file is."""
        return os.fstat(fd).st_size

    def has_name(self, fd: int) -> bool:
        """Whether the open file can still be found, by any name."""
        return os.fstat(fd).st_nlink > 0

    def write(self, fd: int, data: bytes, at: int) -> None:
        """All of `data`, from position `at` on."""
        view = memoryview(data)
        while view:
            if hasattr(os, "pwrite"):
                written = os.pwrite(fd, view, at)
            else:  # Windows; only one thread at a time uses a file
                os.lseek(fd, at, os.SEEK_SET)
                written = os.write(fd, view)
            view, at = view[written:], at + written

    def read(self, fd: int, size: int, at: int) -> bytes:
        """At most `size` bytes from position `at` on; none: the file ends there."""
        if hasattr(os, "pread"):
            return os.pread(fd, size, at)
        os.lseek(fd, at, os.SEEK_SET)
        return os.read(fd, size)

    def truncate(self, fd: int, size: int) -> None:
        """Cut the file off."""
        os.ftruncate(fd, size)

    def copy(self, source: int, target: int, size: int, at: int) -> int:
        """The first `size` bytes of one file to position `at` of another; returns how many there were."""
        copied = 0
        while copied < size:
            count = min(size - copied, 1 << 30)
            try:
                done = os.copy_file_range(source, target, count, copied, at + copied)
            except (AttributeError, OSError) as error:
                if isinstance(error, OSError) and error.errno not in _NO_COPY:
                    raise
                piece = self.read(source, min(count, _COPY), copied)
                self.write(target, piece, at + copied)
                done = len(piece)
            if not done:
                break
            copied += done
        return copied

    def sync(self, fd: int) -> None:
        """Bytes and length reach the medium before this returns."""
        if hasattr(os, "fdatasync"):
            os.fdatasync(fd)
        else:
            self._sync_all(fd)

    def sync_folder(self, path: Path) -> None:
        """The names in the folder reach the medium before this returns."""
        if not hasattr(os, "O_DIRECTORY"):
            return  # Windows keeps names in its journal, and opens no folder
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | _FLAGS)
        try:
            self._sync_all(fd)
        except OSError as error:
            if error.errno != errno.EINVAL:  # a file system on which folders are not synced
                raise
        finally:
            os.close(fd)

    def _sync_all(self, fd: int) -> None:
        if hasattr(fcntl, "F_FULLFSYNC"):  # macOS, whose fsync ends in the cache of the drive
            try:
                fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
            except OSError as error:
                if error.errno not in _NO_FULL_SYNC:
                    raise
            else:
                return
        os.fsync(fd)

    def make_folder(self, path: Path) -> None:
        """A folder, 0700, if there is none."""
        path.mkdir(mode=0o700, exist_ok=True)

    def link(self, source: Path, target: Path) -> None:
        """A second name for a file. `FileExistsError`: there is something of that name."""
        target.hardlink_to(source)

    def remove(self, path: Path) -> None:
        """Remove a name, if it is there."""
        try:
            path.unlink(missing_ok=True)
        except PermissionError:  # Windows removes nothing that is protected
            path.chmod(0o600)
            path.unlink(missing_ok=True)

    def protect(self, path: Path) -> None:
        """Nobody is to write to the file any more: 0400."""
        path.chmod(0o400)

    def status(self, path: Path) -> os.stat_result | None:
        """What is known of a name itself, if it is there; of a symbolic link not what it points to."""
        try:
            return path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def names(self, folder: Path) -> list[str]:
        """The names in a folder; none if it is not there."""
        try:
            return os.listdir(folder)  # noqa: PTH208 - names are all that is wanted
        except FileNotFoundError:
            return []

    def free_bytes(self, path: Path) -> int:
        """How much room there is for those who may not use what is kept for root."""
        return shutil.disk_usage(path).free

    def boot(self) -> str:
        """What is another after each start of the machine. Empty where the system does not say: there a loss
        of power is noticed only by files that are too short."""
        try:
            return _BOOT_ID.read_text("ascii").strip()
        except OSError:
            return ""


def is_protected(status: os.stat_result) -> bool:
    """Whether `Disk.protect` was the last that was done to the file's mode."""
    return not status.st_mode & stat.S_IWUSR
