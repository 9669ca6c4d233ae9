"""One request, from its head to its answer.

Owns the order of route, plain read, `authorize`, codec and engine, and the rim where every failure becomes an
answer; knows no lifespan and no store. `TusApp` calls it for each request.
"""

import inspect
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TypeAlias, assert_never

from starlette.requests import Request
from starlette.responses import Response

from tusserve.answering import Incoming, send_reply, with_headers
from tusserve.body import is_empty
from tusserve.concatenating import Assembler
from tusserve.config import Settings
from tusserve.downloading import CutShort, Download
from tusserve.endings import identified
from tusserve.engine import Engine, Found
from tusserve.errors import IdTaken, StoreUnavailable, Unsupported
from tusserve.hooks import Hooks, Who, answer_of
from tusserve.journal import log_refused
from tusserve.mounting import Location, Receive, Scope, Send, id_in, locate, mounted_elsewhere, quoted_root
from tusserve.protocol import decide, life
from tusserve.protocol.commands import Append, Create, Inspect, Terminate
from tusserve.protocol.http import Head, Problem, Reply
from tusserve.protocol.metadata import Metadata
from tusserve.protocol.outcomes import Code, Created, Outcome, Refused, RefusedByHost
from tusserve.protocol.records import Action, Kind, Reason, UploadRecord
from tusserve.protocol.tus1 import Operation, Target, Tus1
from tusserve.upload import NewUpload, Shelf, Upload, new_id

logger = logging.getLogger("tusserve")

RenderError: TypeAlias = Callable[[Request, Problem], Response | Awaitable[Response]]

ACTIONS = {
    Operation.CREATE: Action.CREATE,
    Operation.INSPECT: Action.INSPECT,
    Operation.APPEND: Action.APPEND,
    Operation.TERMINATE: Action.TERMINATE,
    Operation.DOWNLOAD: Action.DOWNLOAD,
}


def _moved(found: Found, outcome: Outcome) -> bool:
    """Whether a refusal is about more bytes than the plain read showed: these moved the expiry, too."""
    return isinstance(outcome, Refused) and outcome.offset not in {None, found.record.offset}


@dataclass(frozen=True, slots=True)
class Answered:
    """What the client is told, and where the upload is that it is about."""

    outcome: Outcome
    location: str | None = None


class Server:
    """Answers the requests of one app."""

    def __init__(
        self,
        path: str,
        engine: Engine,
        assembler: Assembler,
        shelf: Shelf,
        hooks: Hooks,
        settings: Settings,
        render_error: RenderError | None,
    ) -> None:
        self._path = path
        self._engine = engine
        self._assembler = assembler
        self._shelf = shelf
        self._hooks = hooks
        self._settings = settings
        self._render_error = render_error
        self._told_where = False
        self._codec = Tus1(
            extensions=frozenset(settings.extensions),
            max_size=settings.max_size,
            downloads=settings.downloads,
            idempotent_delete=settings.idempotent_delete,
        )

    async def serve(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        who: Who | None,
        start: Callable[[], Awaitable[None]],
    ) -> None:
        """Answer one HTTP request, whatever happens. `who`: the host said who asks, `authorize` is not;
        `start` is awaited before a plug-in or a hook is needed."""
        head = Head.of(scope["method"], scope["headers"], scope.get("http_version", "1.1"))
        incoming = Incoming(receive, head)
        operation = self._codec.operation(head)
        location = locate(scope, self._path)
        try:
            answered = await self._answer(scope, head, incoming, location, who, start, send)
            if answered is None:
                return
            reply, close = answered
            if reply.code is not None:
                log_refused(head.method, reply.status, reply.code, None if location is None else location.id)
        except CutShort:
            raise  # there is a status already, and only a broken connection still tells of it
        except StoreUnavailable as error:
            reply, close = self._failed(Code.STORE_UNAVAILABLE, error, operation, location)
        except Exception as error:  # noqa: BLE001 - the rim: a client gets an answer, whatever it is
            reply, close = self._failed(Code.INTERNAL_ERROR, error, operation, location)
        if reply.problem is not None and self._render_error is not None:
            reply = await self._in_their_words(self._render_error, Request(scope), reply, reply.problem)
        await send_reply(reply, incoming, head, send, close=close)

    def _failed(
        self, code: Code, error: Exception, operation: Operation | None, location: Location | None
    ) -> tuple[Reply, bool]:
        upload_id = None if location is None else location.id
        logger.error("a request failed: %s", error, exc_info=error, extra={"id": upload_id, "code": code})
        refused = Refused(code=code, retry_after=1)
        return self._codec.render(refused, operation, id=upload_id), False

    async def _answer(
        self,
        scope: Scope,
        head: Head,
        incoming: Incoming,
        location: Location | None,
        who: Who | None,
        start: Callable[[], Awaitable[None]],
        send: Send,
    ) -> tuple[Reply, bool] | None:
        """The reply, and whether to close on it; None: it was a download, and is sent."""
        operation = self._codec.operation(head)
        if location is None:
            return self._nothing_here(scope, operation), False
        target = self._codec.route(head, location.id)
        if isinstance(target, Refused):
            return self._codec.render(target, operation, id=location.id), False
        if target.operation is Operation.CAPABILITIES:
            return self._codec.capabilities(), False
        await start()
        found = None if target.id is None else await self._engine.look(target.id)
        answered = await self._decide(Request(scope), head, incoming, target, found, location, who)
        if isinstance(answered, Download):
            refused = await answered.answer(scope, incoming.receive, send)
            if refused is None:
                return None
            answered = Answered(refused)
        outcome = answered.outcome
        if found is not None and _moved(found, outcome):
            found = await self._engine.look(found.record.id)
        reply = self._codec.render(
            outcome,
            target.operation,
            id=target.id,
            location=answered.location,
            record=None if found is None else found.record,
        )
        # A writer that was let go may be silent for ever: its connection is not worth another second.
        close = isinstance(outcome, Refused) and outcome.code in {Code.UPLOAD_INTERRUPTED, Code.DRAINING}
        return reply, close

    def _nothing_here(self, scope: Scope, operation: Operation | None) -> Reply:
        wrong = mounted_elsewhere(scope, self._path)
        if wrong is not None and not self._told_where:
            self._told_where = True
            logger.error(wrong)
        message = f"Nothing is here: uploads are below {self._path}/."
        return self._codec.render(Refused(code=Code.UPLOAD_NOT_FOUND, message=wrong or message), operation)

    async def _decide(
        self,
        request: Request,
        head: Head,
        incoming: Incoming,
        target: Target,
        found: Found | None,
        location: Location,
        who: Who | None,
    ) -> Answered | Download:
        if who is None:
            upload = None if found is None else Upload(found.record, self._shelf)
            asked = await self._hooks.authorize(request, ACTIONS[target.operation], upload)
            if not isinstance(asked, Who):
                return Answered(asked)
            compares = self._hooks.has_authorize
        else:
            asked, compares = who, True
        if compares and found is not None and found.record.owner != asked.owner:
            found = None  # another's upload is none
        if target.operation is Operation.DOWNLOAD:
            return self._download(found, head)
        command = self._codec.read(head, target)
        match command:
            case Refused():
                return Answered(command)
            case Create():
                record = await self._record(command, asked, location, compares=compares)
                if isinstance(record, Refused):
                    return Answered(record)
                return await self._create(command, record, request, incoming, location)
            case Inspect():
                return Answered(await self._assembler.inspect(command, found))
            case Append():
                return Answered(await self._engine.append(command, found, incoming.receive))
            case Terminate():
                if found is None:
                    return Answered(Refused(code=Code.UPLOAD_NOT_FOUND))
                return Answered(await self._engine.terminate(command.id, Reason.CLIENT))
            case _:
                assert_never(command)

    def _download(self, found: Found | None, head: Head) -> Answered | Download:
        now = self._settings.clock()
        if found is None:
            return Answered(Refused(code=Code.UPLOAD_NOT_FOUND))
        refused = decide.plan_download(found.record, now, held=found.held is not None)
        return Download(Upload(found.record, self._shelf), head) if refused is None else Answered(refused)

    # ---- creation

    async def _create(
        self,
        command: Create,
        record: UploadRecord,
        request: Request,
        incoming: Incoming,
        location: Location,
    ) -> Answered:
        command = replace(command, length=record.length)  # of a final: what its parts have
        policy = decide.Policy(max_size=self._settings.max_size, min_size=self._hooks.least(self._settings))
        refused = decide.plan_creation(command, policy) or self._engine.refuse_work(body=command.carries_body)
        if refused is not None:
            return Answered(refused)
        new = NewUpload(
            id=record.id,
            length=record.length,
            metadata=Metadata.load(record.metadata),
            owner=record.owner,
            kind=record.kind,
            expires_at=record.expires_at,
        )
        accepted = await self._hooks.on_create(new, request)
        if isinstance(accepted, Refused | RefusedByHost):
            return Answered(accepted)
        # Parts are nowhere but where the storage puts them: what is made of them has the key.
        record = identified(record, replace(accepted, key=None) if record.kind is Kind.PARTIAL else accepted)
        if accepted.max_size is not None:
            record = replace(record, max_size=min(accepted.max_size, record.max_size))
            if (
                refused := decide.plan_creation(command, replace(policy, max_size=record.max_size))
            ) is not None:
                return Answered(refused)
        if accepted.expires_in is not None:
            self.check_expires()
            record = life.expire_in(record, accepted.expires_in)
        if record.kind is Kind.FINAL:
            outcome = await self._assembler.create(record)
        elif record.length == 0 and command.carries_body and not await self._brings_nothing(incoming):
            outcome = Refused(code=Code.BODY_TOO_LONG)
        else:
            try:
                outcome = await self._engine.create(record, command, incoming.receive)
            except IdTaken as error:
                raise RuntimeError("a random id was taken") from error
        if isinstance(outcome, Created):
            outcome = replace(outcome, headers=accepted.headers, body=accepted.body)
        return Answered(outcome, self.url(location.root, record.id))

    async def _brings_nothing(self, incoming: Incoming) -> bool:
        return await is_empty(incoming.receive, self._settings.timeouts.idle)

    async def _record(
        self, command: Create, who: Who, location: Location, *, compares: bool
    ) -> UploadRecord | Refused:
        """The record that a creation asks for; `compares`: whether owners matter here."""
        settings = self._settings
        if command.kind is Kind.FINAL:
            below = [self.url(location.root, ""), f"{quoted_root(location.root)}{self._path}/"]
            ids = [id_in(part, below) for part in command.parts]
            known = tuple(each for each in ids if each is not None)
            if len(known) < len(ids):
                return Refused(code=Code.INVALID_PART)
            return await self._assembler.open(replace(command, parts=known), who, compares=compares)
        return life.open_upload(
            id=new_id(),
            name=settings.name,
            owner=who.owner,
            length=command.length,
            max_size=settings.max_size,
            metadata=command.metadata,
            gated=self._hooks.gated,
            now=settings.clock(),
            expiry=settings.expiring,
            kind=command.kind,
            concat=command.concat,
            ends=command.ends,
        )

    def url(self, root: str, id: str) -> str:
        """Where an upload is: absolute with `base_url`, else a path of this server."""
        if self._settings.base_url is not None:
            return f"{self._settings.base_url.rstrip('/')}{self._path}/{id}"
        return f"{quoted_root(root)}{self._path}/{id}"

    def check_expires(self) -> None:
        """Raise `Unsupported` if uploads do not expire here: nobody would be told that this one does."""
        if self._settings.expiring is None:
            raise Unsupported("expires_in needs the extension expiration, which this app does not have")

    # ---- errors

    async def _in_their_words(
        self, render: RenderError, request: Request, reply: Reply, problem: Problem
    ) -> Reply:
        try:
            answer = render(request, problem)
            response = await answer_of(answer) if inspect.isawaitable(answer) else answer
            return with_headers(reply, bytes(response.body), tuple(response.headers.items()))
        except Exception:
            logger.exception("render_error failed", extra={"id": problem.upload_id, "code": problem.code})
            return reply
