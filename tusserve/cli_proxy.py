"""What a trusted proxy says about the request that it hands on.

Owns the reading of X-Forwarded-Proto, -Host and -For, and Locations that are right for the outside. Knows no
upload. `cli_serve` puts it around the app for `--behind-proxy`; a library's user has a framework for this.
"""

import ipaddress
import re
from collections.abc import Sequence
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tusserve.cli_options import Network

_HOST: Final = re.compile(r"([A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?")
"""A name or an address, and a port: nothing that could end a header or a host."""


class ForwardedHeaders:
    """An ASGI app around `app` that believes X-Forwarded-* from `trusted` networks, and from nobody else.

    Of several values the last is meant: the one that the nearest proxy wrote, whatever a client sent before
    it. Where the host is known, a Location that is a path becomes absolute.
    """

    def __init__(self, app: ASGIApp, trusted: Sequence[Network]) -> None:
        self._app = app
        self._trusted = tuple(trusted)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the request on as the client meant it."""
        if scope["type"] != "http" or not scope.get("client") or not self._trusts(scope["client"][0]):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        scope = dict(scope)
        scheme = _last(headers, "x-forwarded-proto").lower()
        if scheme in ("http", "https"):
            scope["scheme"] = scheme
        if client := self._client(headers):
            scope["client"] = (client, 0)
        host = _last(headers, "x-forwarded-host")
        if not _HOST.fullmatch(host):
            await self._app(scope, receive, send)
            return
        outside = f"{scope['scheme']}://{host}"
        scope["headers"] = [pair for pair in scope["headers"] if pair[0] != b"host"]
        scope["headers"].append((b"host", host.encode("ascii")))

        async def send_absolute(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer = MutableHeaders(scope=message)
                location = answer.get("location", "")
                if location.startswith("/") and not location.startswith("//"):
                    answer["location"] = outside + location
            await send(message)

        await self._app(scope, receive, send_absolute)

    def _client(self, headers: Headers) -> str | None:
        """The last hop that is not one of our proxies: further left anybody may have written anything."""
        hops = ",".join(headers.getlist("x-forwarded-for")).split(",")
        outside = next((hop.strip() for hop in reversed(hops) if not self._trusts(hop.strip())), "")
        return outside if _address(outside) else None

    def _trusts(self, host: str) -> bool:
        address = _address(host)
        return address is not None and any(address in network for network in self._trusted)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    # A socket for both families names its IPv4 peers ::ffff:192.0.2.7.
    return getattr(address, "ipv4_mapped", None) or address


def _last(headers: Headers, name: str) -> str:
    return ",".join(headers.getlist(name)).rsplit(",", 1)[-1].strip()
