"""An app that speaks the toy dialect, over the same engine as every other, and a client for it.

Owns how the two meet: the way of a request that `tusserve.serving` has for TUS, as short as it can be. `Site`
and `Host` are those of the engine's tests.
"""

from typing import Final, Self, assert_never

from starlette.types import Receive, Scope, Send

from tests.dialect import codec
from tests.engine.quick_loop import LoopClock
from tests.engine.world import HEAD, Host, Site
from tusserve.answering import Incoming, send_reply
from tusserve.config import Settings
from tusserve.engine import Engine
from tusserve.hooks import Hooks
from tusserve.lease import Leases
from tusserve.lifetime import Lifetime, answer_lifespan
from tusserve.mounting import Location, locate
from tusserve.protocol import decide, life
from tusserve.protocol.commands import Append, Create, Inspect, Terminate
from tusserve.protocol.http import Head
from tusserve.protocol.outcomes import Code, Outcome, Refused
from tusserve.protocol.records import Reason
from tusserve.reaper import Reaper
from tusserve.serving import new_id
from tusserve.tasks import AppTasks
from tusserve.testing.client import Body, Response, Told, TusClient
from tusserve.testing.faults import Faults, faulty_storage, faulty_store
from tusserve.upload import Shelf

MAX_SIZE: Final = 1000


class DialectApp:
    """Uploads below `/files`, in the words of the toy."""

    def __init__(self, site: Site, host: Host, faults: Faults, *, gate: bool) -> None:
        self.shelf = Shelf(faulty_storage(site.storage(), faults), faulty_store(site.store(), faults))
        self.settings = Settings(max_size=MAX_SIZE, sniff_size=HEAD, sweep_every=None, clock=LoopClock())
        self.tasks = AppTasks()
        self.hooks = Hooks(
            authorize=None,
            on_create=None,
            on_first_chunk=host.on_first_chunk if gate else None,
            on_complete=host.on_complete,
            on_terminate=host.on_terminate,
            observe=None,
            timeout=self.settings.timeouts.hook,
            tasks=self.tasks,
        )
        leases = Leases(self.shelf.store, durable=False)
        self.engine = Engine(self.shelf, self.hooks, self.settings, self.tasks, leases)
        self.reaper = Reaper(self.engine, self.shelf, self.hooks, self.settings)
        self.lifetime = Lifetime(self.shelf, self.engine, self.reaper, leases, self.tasks, None)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await answer_lifespan(self.lifetime, receive, send)
            return
        head = Head.of(scope["method"], scope["headers"], scope["http_version"])
        incoming = Incoming(receive, head)
        location = locate(scope, "/files")
        assert location is not None
        outcome, where = await self._decide(head, incoming, location)
        await send_reply(codec.render(outcome, where), incoming, head, send, close=False)

    async def _decide(self, head: Head, incoming: Incoming, location: Location) -> tuple[Outcome, str | None]:
        command = codec.read(head, location.id)
        if isinstance(command, Refused):
            return command, None
        if isinstance(command, Create):
            return await self._create(command, incoming)
        found = await self.engine.look(command.id)
        match command:
            case Inspect():
                return await self.engine.inspect(command, found), None
            case Append():
                return await self.engine.append(command, found, incoming.receive), None
            case Terminate():
                if found is None:
                    return Refused(code=Code.UPLOAD_NOT_FOUND), None
                return await self.engine.terminate(command.id, Reason.CLIENT), None
            case _:
                assert_never(command)

    async def _create(self, command: Create, incoming: Incoming) -> tuple[Outcome, str | None]:
        refused = decide.plan_creation(command, decide.Policy(max_size=MAX_SIZE))
        if refused is not None:
            return refused, None
        record = life.open_upload(
            id=new_id(),
            name=self.settings.name,
            owner=None,
            length=command.length,
            max_size=MAX_SIZE,
            metadata=command.metadata,
            gated=self.hooks.gated,
            now=self.settings.clock(),
            expiry=self.settings.expiring,
            ends=command.ends,
        )
        return await self.engine.create(record, command, incoming.receive), f"/files/{record.id}"


class Process:
    """One such app on a site, with a client that speaks the toy dialect."""

    def __init__(self, site: Site, host: Host, *, gate: bool = True) -> None:
        self.faults = Faults()
        self.app = DialectApp(site, host, self.faults, gate=gate)
        self.client = TusClient(self.app, timeout=3600)

    async def __aenter__(self) -> Self:
        await self.client.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.faults.crashed:
            await self.client.kill()
            await self.faults.bury()
        else:
            await self.client.__aexit__(None, None, None)

    async def crash(self) -> None:
        """Die; the store can prove it."""
        self.faults.crash_now()
        await self.client.kill()
        await self.faults.bury("store")

    async def settle(self) -> None:
        """Wait until the tasks of the app are through with what they began."""
        await self.app.tasks.drained()

    # ---- the client

    async def create(
        self,
        *,
        ends: bool,
        length: int | None = None,
        body: Body = b"",
        told: Told = "auto",
        cut_after: int | None = None,
    ) -> Response:
        """POST."""
        return await self.client.request(
            "POST",
            "/files",
            headers=words(ends=ends, length=length),
            body=body,
            content_length=told,
            cut_after=cut_after,
            chunk_size=3,
        )

    async def append(
        self,
        url: str,
        body: Body,
        *,
        at: int,
        ends: bool,
        length: int | None = None,
        told: Told = "auto",
        cut_after: int | None = None,
    ) -> Response:
        """PATCH."""
        return await self.client.request(
            "PATCH",
            url,
            headers=words(ends=ends, length=length, at=at),
            body=body,
            content_length=told,
            cut_after=cut_after,
            chunk_size=3,
        )

    async def head(self, url: str) -> Response:
        """HEAD."""
        return await self.client.head(url, headers={"Tus-Resumable": None})

    async def delete(self, url: str) -> Response:
        """DELETE."""
        return await self.client.delete(url, headers={"Tus-Resumable": None})


def words(*, ends: bool, length: int | None = None, at: int | None = None) -> dict[str, str | None]:
    """The headers of a request with a body; `at` is what makes it an append."""
    said: dict[str, str | None] = {"Tus-Resumable": None, "Upload-Complete": "?1" if ends else "?0"}
    if length is not None:
        said["Upload-Length"] = str(length)
    if at is not None:
        said |= {"Upload-Offset": str(at), "Content-Type": codec.PARTIAL}
    return said


def progress(answer: Response) -> tuple[int, str | None, str | None]:
    """Status, offset and completeness, as an answer tells them."""
    return answer.status, answer.headers.get("upload-offset"), answer.headers.get("upload-complete")


def code(answer: Response) -> str:
    """The stable word of a refusal."""
    problem = answer.json()
    assert isinstance(problem, dict)
    return str(problem["code"])
