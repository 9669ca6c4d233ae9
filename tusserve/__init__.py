"""Resumable uploads for any Python web application: TUS 1.0.0 as a pure ASGI app.

Everything that is public is here, in `tusserve.contracts` and in `tusserve.testing`; backends with
dependencies of their own are imported from their modules. Each name is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tusserve.asgi import TusApp as TusApp
    from tusserve.config import ALLOW_HEADERS as ALLOW_HEADERS
    from tusserve.config import EXPOSE_HEADERS as EXPOSE_HEADERS
    from tusserve.config import METHODS as METHODS
    from tusserve.config import GiB as GiB
    from tusserve.config import MiB as MiB
    from tusserve.config import Timeouts as Timeouts
    from tusserve.contracts import StorageBackend as StorageBackend
    from tusserve.contracts import UploadStore as UploadStore
    from tusserve.cors import Cors as Cors
    from tusserve.errors import ConfigError as ConfigError
    from tusserve.errors import CursorLost as CursorLost
    from tusserve.errors import IdTaken as IdTaken
    from tusserve.errors import KeyTaken as KeyTaken
    from tusserve.errors import NotComplete as NotComplete
    from tusserve.errors import Rejected as Rejected
    from tusserve.errors import StorageFull as StorageFull
    from tusserve.errors import StorageUnavailable as StorageUnavailable
    from tusserve.errors import StoreUnavailable as StoreUnavailable
    from tusserve.errors import TusError as TusError
    from tusserve.errors import Unsupported as Unsupported
    from tusserve.errors import UploadBusy as UploadBusy
    from tusserve.errors import UploadNotFound as UploadNotFound
    from tusserve.hooks import Authorize as Authorize
    from tusserve.hooks import Observer as Observer
    from tusserve.hooks import OnComplete as OnComplete
    from tusserve.hooks import OnCreate as OnCreate
    from tusserve.hooks import OnFirstChunk as OnFirstChunk
    from tusserve.hooks import OnTerminate as OnTerminate
    from tusserve.protocol.http import Problem as Problem
    from tusserve.protocol.metadata import Metadata as Metadata
    from tusserve.protocol.records import Action as Action
    from tusserve.protocol.records import Expiry as Expiry
    from tusserve.protocol.records import Kind as Kind
    from tusserve.protocol.records import Reason as Reason
    from tusserve.protocol.records import Refusal as Refusal
    from tusserve.protocol.records import UploadState as UploadState
    from tusserve.protocol.tus1 import Extension as Extension
    from tusserve.reaper import SweepReport as SweepReport
    from tusserve.serving import RenderError as RenderError
    from tusserve.storage.file import FileStorage as FileStorage
    from tusserve.storage.memory import MemoryStorage as MemoryStorage
    from tusserve.stores.memory import MemoryStore as MemoryStore
    from tusserve.stores.sqlite import SQLiteStore as SQLiteStore
    from tusserve.upload import Accepted as Accepted
    from tusserve.upload import Completed as Completed
    from tusserve.upload import Created as Created
    from tusserve.upload import Event as Event
    from tusserve.upload import NewUpload as NewUpload
    from tusserve.upload import Progressed as Progressed
    from tusserve.upload import Terminated as Terminated
    from tusserve.upload import Upload as Upload

_MODULES = {
    "asgi": ("TusApp",),
    "config": ("ALLOW_HEADERS", "EXPOSE_HEADERS", "METHODS", "Extension", "GiB", "MiB", "Timeouts"),
    "contracts": ("StorageBackend", "UploadStore"),
    "cors": ("Cors",),
    "errors": (
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
    ),
    "hooks": ("Authorize", "Observer", "OnComplete", "OnCreate", "OnFirstChunk", "OnTerminate"),
    "protocol.http": ("Problem",),
    "protocol.metadata": ("Metadata",),
    "protocol.records": ("Action", "Expiry", "Kind", "Reason", "Refusal", "UploadState"),
    "reaper": ("SweepReport",),
    "serving": ("RenderError",),
    "storage.file": ("FileStorage",),
    "storage.memory": ("MemoryStorage",),
    "stores.memory": ("MemoryStore",),
    "stores.sqlite": ("SQLiteStore",),
    "upload": (
        "Accepted",
        "Completed",
        "Created",
        "Event",
        "NewUpload",
        "Progressed",
        "Terminated",
        "Upload",
    ),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'tusserve' has no attribute {name!r}")
    value: object = getattr(import_module(f"tusserve.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
