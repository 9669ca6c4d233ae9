"""`TusApp`: the ASGI app, and everything a host does with it.

Owns the wiring of the parts and the public methods; the protocol is in `tusserve.protocol`, what happens to
an upload in `tusserve.engine`, a request's way in `tusserve.serving`. Hosts and the command line make one.
"""

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from os import PathLike
from types import TracebackType
from typing import Any, Self, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route

from tusserve.config import GiB, Settings, Timeouts, narrowed, utc_now
from tusserve.contracts import (
    HasLocalPath,
    JoinsTransaction,
    KnowsIds,
    ListsUploads,
    StorageBackend,
    UploadStore,
)
from tusserve.cors import Cors
from tusserve.engine import Engine
from tusserve.errors import ConfigError, IdTaken, Rejected, Unsupported, UploadBusy
from tusserve.hooks import (
    Authorize,
    Hooks,
    Observer,
    OnComplete,
    OnCreate,
    OnFirstChunk,
    OnTerminate,
    Who,
    check_called,
)
from tusserve.lease import Leases
from tusserve.lifetime import DRAIN_DEADLINE, Lifetime, answer_both_lifespans, answer_lifespan
from tusserve.mounting import Receive, Scope, Send, locate, normalized, without_body_limit
from tusserve.protocol import life
from tusserve.protocol.fields import imf_fixdate, is_id
from tusserve.protocol.metadata import Metadata
from tusserve.protocol.outcomes import Code, RefusedByHost, Terminated
from tusserve.protocol.records import Expiry, Json, Reason, UploadState
from tusserve.protocol.tus1 import VERSION, Extension
from tusserve.reaper import Reaper, SweepReport
from tusserve.serving import RenderError, Server, new_id
from tusserve.tasks import AppTasks
from tusserve.upload import Shelf, Upload, check_attributes, check_expiry, check_key

A = TypeVar("A", bound=Callable[..., Awaitable[None]])


class TusApp:
    """Resumable uploads below `path`, as an ASGI app.

    The constructor does no I/O and binds no event loop; it raises `ConfigError` for settings that cannot be.
    `path` is the public path below the server's root path. `storage` keeps the bytes, `store` the records.
    Every parameter and hook is described in the reference.
    """

    def __init__(
        self,
        path: str,
        *,
        storage: StorageBackend,
        store: UploadStore,
        name: str = "default",
        authorize: Authorize | None = None,
        on_create: OnCreate | None = None,
        on_first_chunk: OnFirstChunk | None = None,
        on_complete: OnComplete | None = None,
        on_terminate: OnTerminate | None = None,
        observe: Observer | None = None,
        render_error: RenderError | None = None,
        extensions: Collection[Extension] | None = None,
        max_size: int = 50 * GiB,
        sniff_size: int = 4096,
        min_first_chunk: int = 0,
        max_bodies: int = 2000,
        expiry: Expiry | None = Expiry(),  # noqa: B008 - frozen
        sweep_every: timedelta | None = timedelta(minutes=1),
        timeouts: Timeouts = Timeouts(),  # noqa: B008 - frozen
        base_url: str | None = None,
        cors: Cors | Collection[str] | None = None,
        downloads: bool = False,
        idempotent_delete: bool = False,
        clock: Callable[[], datetime] | None = None,
    ) -> None:
        _check(storage, store, render_error=render_error, clock=clock)
        self._path = normalized(path)
        self._settings = Settings(
            name=name,
            extensions=narrowed(extensions, expiry),
            max_size=max_size,
            sniff_size=sniff_size,
            min_first_chunk=min_first_chunk,
            max_bodies=max_bodies,
            expiry=expiry,
            sweep_every=sweep_every,
            timeouts=timeouts,
            base_url=base_url,
            downloads=downloads,
            idempotent_delete=idempotent_delete,
            clock=clock or utc_now,
        )
        self._shelf = Shelf(storage, store)
        self._hooks = Hooks(
            authorize=authorize,
            on_create=on_create,
            on_first_chunk=on_first_chunk,
            on_complete=on_complete,
            on_terminate=on_terminate,
            observe=observe,
            timeout=timeouts.hook,
            tasks=(tasks := AppTasks()),
        )
        self._cors = Cors.of(cors)
        self._put_together(tasks, render_error)

    def _put_together(self, tasks: AppTasks, render_error: RenderError | None) -> None:
        # A fence number that is lost with the power matters only where requests outlive this machine.
        leases = Leases(self._shelf.store, durable=not isinstance(self._shelf.storage, HasLocalPath))
        parts = (self._shelf, self._hooks, self._settings)
        self._engine = Engine(*parts, tasks, leases)
        self._reaper = Reaper(self._engine, *parts)
        self._server = Server(self._path, self._engine, *parts, render_error)
        sweep_every = self._settings.sweep_every
        self._lifetime = Lifetime(self._shelf, self._engine, self._reaper, leases, tasks, sweep_every)

    # ---- as an ASGI app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI interface; also answers the lifespan of a server that runs this app itself."""
        await self._serve(scope, receive, send, None)

    async def _serve(self, scope: Scope, receive: Receive, send: Send, who: Who | None) -> None:
        if scope["type"] == "lifespan":
            await answer_lifespan(self._lifetime, receive, send)
        elif scope["type"] == "http":

            async def serve(scope: Scope, receive: Receive, send: Send) -> None:
                await self._server.serve(scope, receive, send, who, self._lifetime.be_started)

            answered = serve if self._cors is None else self._cors.around(serve)
            await without_body_limit(scope, answered)(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1000})

    @property
    def routes(self) -> list[BaseRoute]:
        """For Starlette and FastAPI: the path with and without a slash behind it, and no redirect."""
        name = f"tusserve:{self._settings.name}"
        # Not the app itself below the mount: Starlette looks there for routes, and would find these again.
        return [
            Route(self._path or "/", self, name=name, include_in_schema=False),
            Mount(self._path, self.__call__),
        ]

    def wrap(self, app: A) -> A:
        """`app` with this one below its path: for frameworks that cannot mount an ASGI app.

        Also usable as `add_middleware(tus.wrap)`. Runs both lifespans, or ours alone where `app` refuses it.
        """

        async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "lifespan":
                await answer_both_lifespans(self._lifetime, app, scope, receive, send)
            elif scope["type"] == "http" and locate(scope, self._path) is not None:
                await self(scope, receive, send)
            else:
                await app(scope, receive, send)

        return wrapped  # type: ignore[return-value]

    @contextlib.asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncGenerator[None]:  # noqa: ARG002 - frameworks give it
        """The lifespan for the host's application: `FastAPI(lifespan=tus.lifespan)`."""
        async with self:
            yield

    async def __aenter__(self) -> Self:
        await self._lifetime.enter()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._lifetime.leave()

    def response(self, *, owner: str | None = None) -> Response:
        """The answer to the current request, for a route of the host's own that knows who asks.

        Takes the place of `authorize`: `owner` is kept with a new upload and compared later, None included.
        """
        return _Delegated(self, Who(owner))

    async def drain(self, deadline: timedelta = DRAIN_DEADLINE) -> None:
        """From now on POST and PATCH are answered 503; running ones flush, commit and end; HEAD goes on.

        Returns when nothing is left to do, at the latest after `deadline`.
        """
        await self._lifetime.drain(deadline)

    # ---- the host's own uploads

    async def create(
        self,
        *,
        length: int | None,
        owner: str | None = None,
        id: str | None = None,
        metadata: Mapping[str, str] | None = None,
        attributes: Mapping[str, Json] | None = None,
        key: str | None = None,
        content_type: str | None = None,
        expires_in: timedelta | None = None,
        transaction: object = None,
    ) -> Upload:
        """Open an upload for a client. No hook is asked.

        `length` in bytes. `id` is at most 128 of letters, digits, `_` and `-` (None: random). `transaction`:
        one of the host's own, for a store in the same database. Raises `Rejected` (413) for a length above
        `max_size`, `IdTaken`, `Unsupported`, and `ValueError` for an id, key, length or expiry that is none.
        """
        await self._lifetime.be_started()
        self._check_new(length, id, key)
        storage = self._shelf.storage
        if id is not None and isinstance(storage, KnowsIds) and await storage.has_bytes(id):
            raise IdTaken(f"the bytes of an upload {id} are there already")
        if expires_in is not None:
            check_expiry(expires_in)
            self._server.check_expires()
        record = life.open_upload(
            id=new_id() if id is None else id,
            name=self._settings.name,
            owner=Who(owner).owner,
            length=length,
            max_size=self._settings.max_size,
            metadata=_metadata_header(metadata),
            gated=self._hooks.gated,
            now=self._settings.clock(),
            expiry=self._settings.expiring,
        )
        record = replace(record, key=key, content_type=content_type, attributes=dict(attributes or {}))
        check_attributes(record.attributes)
        if expires_in is not None:
            record = life.expire_in(record, expires_in)
        store = self._shelf.store
        if transaction is None:
            return Upload(await self._engine.keep(record), self._shelf)
        if not isinstance(store, JoinsTransaction):
            raise Unsupported("this store cannot join a transaction of the host")
        return Upload(await store.create_in(record, transaction), self._shelf)

    def _check_new(self, length: int | None, id: str | None, key: str | None) -> None:
        if length is None and "creation-defer-length" not in self._settings.extensions:
            raise Unsupported("an upload without a length needs the extension creation-defer-length")
        if length is not None and length < 0:
            raise ValueError(f"the length of an upload is not negative: {length}")
        if length is not None and length > self._settings.max_size:
            most = self._settings.max_size
            raise Rejected(413, Code.UPLOAD_TOO_LARGE, f"An upload here has at most {most} bytes.")
        if id is not None and not is_id(id):
            raise ValueError(f"not an id: {id!r} (at most 128 letters, digits, _ and -)")
        if key is not None:
            check_key(key)

    async def get(self, id: str) -> Upload | None:
        """The upload as it is now, without disturbing its writer; ended ones until they are forgotten."""
        await self._lifetime.be_started()
        found = await self._engine.look(id)
        return None if found is None else Upload(found.record, self._shelf)

    async def terminate(self, id: str) -> bool:
        """End an upload, complete or not, whoever writes to it. False: there is none, or no longer.

        Raises `UploadBusy` while it is being finished, or a live process does not let it go.
        """
        await self._lifetime.be_started()
        outcome = await self._engine.terminate(id, Reason.HOST)
        if isinstance(outcome, Terminated | RefusedByHost):  # refused for good by its own hook: ended, too
            return True
        if outcome.code in _ENDED_ALREADY:
            return False
        raise UploadBusy(f"upload {id} cannot be ended now: try again")

    async def uploads(
        self,
        *,
        owner: str | None = None,
        state: UploadState | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> Sequence[Upload]:
        """Uploads by id, those after `after`; `owner` and `state` narrow it where given. `Unsupported`."""
        await self._lifetime.be_started()
        store = self._shelf.store
        if not isinstance(store, ListsUploads):
            raise Unsupported("this store cannot list uploads")
        records = await store.uploads(self._settings.name, owner=owner, state=state, after=after, limit=limit)
        return [Upload(record, self._shelf) for record in records]

    async def sweep(self, *, dry_run: bool = False) -> SweepReport:
        """Do what is due now: expire, retry, forget, remove strays. `dry_run` counts and changes nothing."""
        await self._lifetime.be_started()
        return await self._reaper.sweep(dry_run=dry_run)

    def url_for(self, upload: Upload | str, request: Request | None = None) -> str:
        """Where clients send its bytes: absolute with `base_url`, else a path, below the root path of
        `request` where that is given."""
        root = ""
        if request is not None:
            root = request.scope.get("app_root_path", request.scope.get("root_path", ""))
        return self._server.url(root, upload if isinstance(upload, str) else upload.id)

    def headers_for(self, upload: Upload, request: Request | None = None) -> dict[str, str]:
        """The headers by which a host's own answer tells a client of an upload that it opened for it."""
        headers = {"Location": self.url_for(upload, request), "Tus-Resumable": VERSION}
        if upload.expires_at is not None and upload.state in {UploadState.RECEIVING, UploadState.WAITING}:
            headers["Upload-Expires"] = imf_fixdate(upload.expires_at)
        return headers


_ENDED_ALREADY = frozenset(
    {
        Code.UPLOAD_NOT_FOUND,
        Code.UPLOAD_TERMINATED,
        Code.UPLOAD_EXPIRED,
        Code.UPLOAD_REJECTED,
        Code.UPLOAD_LOST,
    }
)


class _Delegated(Response):
    """A response that lets the app answer."""

    def __init__(self, app: TusApp, who: Who) -> None:
        super().__init__()
        self._app = app
        self._who = who

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # as Starlette types it
        await self._app._serve(scope, receive, send, self._who)  # noqa: SLF001 - its other half
        if self.background is not None:
            await self.background()


def _metadata_header(metadata: Mapping[str, str] | None) -> str | None:
    if metadata is None:
        return None
    raw = metadata.raw if isinstance(metadata, Metadata) else Metadata.encode(metadata)
    return raw or None


def _check(storage: object, store: object, **called: object) -> None:
    """A swap or a half-written plug-in is told at once, by the name of what is missing."""
    check_called(**called)
    storage_needs = ("writer", "read", "seal", "discard", "checkpoint_bytes")
    store_needs = ("create", "get", "acquire", "renew", "commit", "release", "ask", "asked", "entries")
    swapped = all(hasattr(storage, need) for need in store_needs) and hasattr(store, "seal")
    for what, plugin, needs in (
        ("storage", storage, storage_needs),
        ("store", store, (*store_needs, "due", "forget")),
    ):
        if isinstance(plugin, type):
            raise ConfigError(
                f"{what}= is the class {plugin.__name__}: make one of it, {plugin.__name__}(...)"
            )
        if isinstance(plugin, str | PathLike):
            sort = "FileStorage" if what == "storage" else "SQLiteStore"
            raise ConfigError(f"{what}= is a path: make {sort}({str(plugin)!r}) of it")
        for need in (*needs, "__aenter__", "__aexit__"):
            if not hasattr(plugin, need):
                hint = "; storage= and store= seem to be swapped" if swapped else ""
                raise ConfigError(f"{what}= is {type(plugin).__name__}, which has no {need!r}{hint}")
