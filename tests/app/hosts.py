"""Small applications in each framework, with uploads in them as the page about mounting says.

Owns how each one takes a `TusApp` in, and how it limits the bodies of its own requests; asserts nothing.
`test_hosts` lets the same requests loose on all of them.
"""

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Annotated, Final, TypeAlias, cast

import litestar
import quart
from django.conf import settings as django_settings  # type: ignore[import-untyped]
from django.core.asgi import get_asgi_application  # type: ignore[import-untyped]
from django.http import HttpRequest, HttpResponse  # type: ignore[import-untyped]
from django.urls import path as django_path  # type: ignore[import-untyped]
from fastapi import Depends, FastAPI, Header
from litestar.handlers import asgi as litestar_asgi
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tusserve import TusApp

HELLO: Final = "/hello"
"""A path of the host's own: it answers with how many bytes it was sent."""

Build: TypeAlias = Callable[[int, tuple[TusApp, ...]], ASGIApp]
"""Of the largest body that the host takes, and of the apps that it takes in."""


async def _hello(request: Request) -> Response:
    return PlainTextResponse(str(len(await request.body())))


def _lifespans(apps: tuple[TusApp, ...]) -> Callable[[object], AsyncGenerator[None]]:
    async def lifespan(app: object) -> AsyncGenerator[None]:
        async with AsyncExitStack() as stack:
            for tus in apps:
                await stack.enter_async_context(tus)
            yield

    return lifespan


def _routes(apps: tuple[TusApp, ...]) -> list[BaseRoute]:
    return [*(route for tus in apps for route in tus.routes), Route(HELLO, _hello, methods=["POST"])]


def starlette(limit: int, apps: tuple[TusApp, ...]) -> ASGIApp:
    return Starlette(
        routes=_routes(apps), lifespan=asynccontextmanager(_lifespans(apps)), max_body_size=limit
    )


def fastapi(limit: int, apps: tuple[TusApp, ...]) -> ASGIApp:
    return FastAPI(routes=_routes(apps), lifespan=asynccontextmanager(_lifespans(apps)), max_body_size=limit)


def fastapi_middleware(limit: int, apps: tuple[TusApp, ...]) -> ASGIApp:
    app = FastAPI(max_body_size=limit, routes=_routes(()))
    for tus in apps:
        app.add_middleware(tus.wrap)
    return app


def fastapi_dependencies(limit: int, apps: tuple[TusApp, ...]) -> ASGIApp:
    app = FastAPI(routes=_routes(()), lifespan=asynccontextmanager(_lifespans(apps)), max_body_size=limit)
    for tus in apps:
        _behind_routes(app, tus)
    return app


def _who(x_user: Annotated[str, Header()] = "ann") -> str:
    return x_user


def _behind_routes(app: FastAPI, tus: TusApp) -> None:
    path = tus._path

    async def files(user: Annotated[str, Depends(_who, scope="function")]) -> Response:
        return tus.response(owner=user)

    async def capabilities() -> Response:
        return tus.response()

    for bare in (path, path + "/"):
        app.add_api_route(bare, files, methods=["POST"])
        app.add_api_route(bare, capabilities, methods=["OPTIONS"])
    app.add_api_route(path + "/{id}", files, methods=["HEAD", "PATCH", "DELETE", "POST"])
    app.add_api_route(path + "/{id}", capabilities, methods=["OPTIONS"])


def litestar_mounted(limit: int, apps: tuple[TusApp, ...]) -> ASGIApp:
    @litestar.post(HELLO, status_code=200, media_type="text/plain")
    async def hello(request: litestar.Request[object, object, litestar.datastructures.State]) -> str:
        return str(len(await request.body()))

    mounts = [litestar_asgi(tus._path, is_mount=True, copy_scope=True)(tus) for tus in apps]
    lifespans = [tus.lifespan for tus in apps]
    app = litestar.Litestar(
        [*mounts, hello],
        lifespan=lifespans,
        request_max_body_size=limit,
        logging_config=None,  # its own would take the handlers of the root logger away from the tests
    )
    return cast("ASGIApp", app)


def quart_wrapped(limit: int, apps: tuple[TusApp, ...]) -> ASGIApp:
    app = quart.Quart("host")
    app.config["MAX_CONTENT_LENGTH"] = limit

    @app.post(HELLO)
    async def hello() -> str:
        return str(len(await quart.request.get_data()))

    for tus in apps:
        app.asgi_app = tus.wrap(app.asgi_app)  # type: ignore[method-assign]
    return cast("ASGIApp", app)


def _django_hello(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(len(request.body)), content_type="text/plain")


urlpatterns = [django_path(HELLO.removeprefix("/"), _django_hello)]


def configure_django() -> None:
    """As a host's settings module would, once in a process."""
    if not django_settings.configured:
        django_settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="tests")


def django_wrapped(limit: int, apps: tuple[TusApp, ...]) -> ASGIApp:
    configure_django()
    django_settings.DATA_UPLOAD_MAX_MEMORY_SIZE = limit
    app = _in_lower_case(cast("ASGIApp", get_asgi_application()))
    for tus in apps:
        app = tus.wrap(app)
    return app


def _in_lower_case(app: ASGIApp) -> ASGIApp:
    """Django sends names of headers as it has them, which servers take and ASGI forbids."""

    async def lowered(scope: Scope, receive: Receive, send: Send) -> None:
        async def lower(message: Message) -> None:
            if "headers" in message:
                message["headers"] = [(name.lower(), value) for name, value in message["headers"]]
            await send(message)

        await app(scope, receive, lower)

    return lowered


def bare(limit: int, apps: tuple[TusApp, ...]) -> ASGIApp:
    first, *others = apps
    app: ASGIApp = first
    for tus in others:
        app = tus.wrap(app)
    return app


HOSTS: Final[Mapping[str, Build]] = {
    "fastapi": fastapi,
    "fastapi-middleware": fastapi_middleware,
    "fastapi-dependencies": fastapi_dependencies,
    "starlette": starlette,
    "litestar": litestar_mounted,
    "quart": quart_wrapped,
    "django": django_wrapped,
    "bare": bare,
}
