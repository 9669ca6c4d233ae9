"""What goes wrong, by name.

Owns the exceptions that plug-ins may raise and that the public methods of `TusApp` let out; knows nothing
that raises them. A refusal of a client is not here: refusals are values (`tusserve.protocol.outcomes`),
except `Rejected`, by which a hook of the host refuses.

    TusError
    +-- ConfigError            the settings contradict each other, or the plug-ins (mend the program)
    +-- UploadNotFound         no such upload, or no longer
    +-- UploadBusy             a live process works on it: try again
    +-- NotComplete            its bytes are not sealed yet
    +-- Unsupported            this storage or store cannot do that
    +-- IdTaken                another upload has this id, or had it a short while ago
    +-- KeyTaken               another upload has this key
    +-- StorageFull            no room for more bytes
    +-- StorageUnavailable     the bytes cannot be reached for now
    +-- StoreUnavailable       the records cannot be reached for now
    +-- CursorLost             acknowledged bytes are no longer there: the upload ends as LOST
"""

from collections.abc import Mapping

from starlette.exceptions import HTTPException

__all__ = [
    "ConfigError",
    "CursorLost",
    "IdTaken",
    "KeyTaken",
    "NotComplete",
    "Rejected",
    "StorageFull",
    "StorageUnavailable",
    "StoreUnavailable",
    "TusError",
    "Unsupported",
    "UploadBusy",
    "UploadNotFound",
]


class TusError(Exception):
    """Everything that tusserve raises on purpose, but `Rejected`."""


class ConfigError(TusError):
    """The settings contradict each other or the plug-ins. Raised at start, never by a request."""


class UploadNotFound(TusError):
    """There is no upload of this id in this app, or no longer."""


class UploadBusy(TusError):
    """A live process works on this upload. Try again in a few seconds."""


class NotComplete(TusError):
    """The upload's bytes are not sealed yet, so they cannot be read."""


class Unsupported(TusError):
    """The storage or the store that was chosen cannot do this."""


class IdTaken(TusError):
    """A record of this id exists, a tombstone's included. Choose another id."""


class KeyTaken(TusError):
    """Another upload's bytes are under this key. The upload that wanted it is refused for good."""


class StorageFull(TusError):
    """The storage has no room for these bytes. What was acknowledged is safe; clients get 507."""


class StorageUnavailable(TusError):
    """The storage cannot be reached, or failed. Nothing was acknowledged; clients get 503."""


class StoreUnavailable(TusError):
    """The store cannot be reached, or failed, and whether the last call took effect is not known."""


class CursorLost(TusError):
    """The storage no longer has bytes that a committed cursor names. The upload ends as LOST."""


class Rejected(HTTPException):
    """A hook's refusal of a client, for good.

    `status` is 400 to 499 and not 423 (which tells clients to try again); `code` is a stable word for
    programs, `message` one sentence for people, `headers` go into the response as they are and `extra` into
    the problem document beside the code. It is a Starlette `HTTPException`, so it means the same when the
    host's own handlers raise it.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, object] | None = None,
    ) -> None:
        if not 400 <= status <= 499 or status == 423:
            raise ValueError(f"Rejected takes a status from 400 to 499 other than 423, not {status}")
        super().__init__(status_code=status, detail=message, headers=dict(headers or {}))
        self.status = status
        self.code = code
        self.message = message
        self.extra = dict(extra or {})
