"""Which pages of other origins may use the app from a browser.

Owns `Cors` and how answers say it; knows no upload and nothing of TUS but the lists in `config`. The app puts
it around everything that it answers, so that no error is without it.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware

from tusserve.config import ALLOW_HEADERS, EXPOSE_HEADERS, METHODS
from tusserve.errors import ConfigError
from tusserve.mounting import ASGIApp, Receive, Scope, Send

ANY: Final = "*"
MAX_AGE: Final = 86400
"""Seconds for which a browser may keep the answer to a preflight; each has a limit of its own below that."""

_ORIGIN: Final = re.compile(
    r"[a-z][a-z0-9+.-]*://[a-z0-9._~-]+(:[0-9]{1,5})?|https?://\[[0-9a-f:.]+\](:[0-9]{1,5})?"
)
_DEFAULT_PORT: Final = re.compile(r"http://.*:80|https://.*:443")


@dataclass(frozen=True, slots=True)
class Cors:
    """Pages of these `origins` may use the app: `https://app.example.com`, as a browser writes it, or `*` for
    pages of every origin. `credentials`: their requests may carry cookies.

    Raises `ConfigError` for what no browser would ever send, and for cookies from every origin: any page
    could then act for whoever looks at it.
    """

    origins: Collection[str]
    credentials: bool = False
    _origins: frozenset[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        several = isinstance(self.origins, Collection) and not isinstance(self.origins, str | bytes)
        given = tuple(self.origins) if several else (self.origins,)
        if not given:
            raise ConfigError("cors= names no origin; leave it out where no other origin is allowed")
        for origin in given:
            _check_origin(origin)
        if self.credentials and ANY in given:
            raise ConfigError("cors= allows cookies only for origins that are named, not for '*'")
        object.__setattr__(self, "_origins", frozenset(given))

    @classmethod
    def of(cls, given: "Cors | Collection[str] | None") -> "Cors | None":
        """What a host gave as `cors=`: all of it, or the origins alone."""
        return given if given is None or isinstance(given, Cors) else cls(given)

    def allows(self, origin: str) -> bool:
        """Whether pages of this origin may use the app."""
        return ANY in self._origins or origin in self._origins

    def around(self, app: ASGIApp) -> ASGIApp:
        """`app`, with what browsers need on each of its answers.

        An origin that is not allowed is answered as if there were no CORS at all: its browser keeps the
        answer from the page, and whoever is no browser could have said another origin.
        """
        allowing = CORSMiddleware(
            app,
            allow_origins=tuple(self._origins),
            allow_methods=METHODS,
            allow_headers=ALLOW_HEADERS,
            allow_credentials=self.credentials,
            expose_headers=EXPOSE_HEADERS,
            max_age=MAX_AGE,
        )

        async def answered(scope: Scope, receive: Receive, send: Send) -> None:
            origin = Headers(scope=scope).get("origin")
            inside = app if origin is None or not self.allows(origin) else allowing
            await inside(scope, receive, _varying(send))

        return answered


def _varying(send: Send) -> Send:
    """Says on each answer that others may get another one: also on those without Origin, which a cache could
    otherwise give to a page."""

    async def vary(message: Scope) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(raw=list(message.get("headers", ())))
            told = {name.strip().lower() for each in headers.getlist("vary") for name in each.split(",")}
            if "origin" not in told:
                headers.append("vary", "Origin")
            message = {**message, "headers": headers.raw}
        await send(message)

    return vary


def _check_origin(origin: object) -> None:
    if not isinstance(origin, str) or not (origin == ANY or _ORIGIN.fullmatch(origin)):
        raise ConfigError(
            f"an origin of cors= is scheme and host in lower case, like 'https://app.example.com', or '*', "
            f"not {origin!r}"
        )
    if _DEFAULT_PORT.fullmatch(origin):
        raise ConfigError(
            f"browsers leave out the port in {origin!r}, for it is the usual one: so must cors="
        )
