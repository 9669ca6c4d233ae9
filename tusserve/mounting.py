"""Where an app is: which part of a path is the server's, which the app's, and which names an upload.

Owns the one rule that serves every framework, bare servers included; knows no protocol. The ASGI rim asks it.
"""

import re
import sys
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias
from urllib.parse import quote

from tusserve.errors import ConfigError
from tusserve.protocol.fields import is_id

_PATH: Final = re.compile(r"/|(/[A-Za-z0-9._~!$&'()*+,;=:@-]+)+/?")
"""Neither percent signs nor braces: frameworks match paths decoded, and take braces for parameters."""

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]


_UNQUOTED: Final = "/:@!$&'()*+,;=-._~"
"""What stands for itself in the path of a URL, beside letters and digits."""


@dataclass(frozen=True, slots=True)
class Location:
    """`root` is the path below which the server serves; `id` what follows the app's path, not decoded; None:
    nothing follows."""

    root: str
    id: str | None


def normalized(path: str) -> str:
    """The app's path with one slash before it and none behind. Raises `ConfigError` for what is no path."""
    if not isinstance(path, str) or not _PATH.fullmatch(path) or {".", ".."}.intersection(path.split("/")):
        raise ConfigError(
            "the path of a TusApp starts with one slash and has only letters, digits and signs that stand "
            f"for themselves in a URL, like '/files' or '/v1/uploads', not {path!r}"
        )
    return path.rstrip("/")


def quoted_root(root_path: str) -> str:
    """A root path as it stands in a URL, whether the server was given it quoted or not."""
    return quote(root_path, safe=_UNQUOTED + "%")


def locate(scope: Scope, path: str) -> Location | None:
    """Where this request is, seen from an app at `path`; None: it is not below it.

    The id is what follows root path and path in the *raw* path: there `%2f` is still no slash. Frameworks
    that mount add the path to `root_path`; some say what it was before, some do not, others leave it alone.
    """
    root_path: str = scope.get("root_path", "")
    raw: bytes | None = scope.get("raw_path")
    full = raw.decode("latin-1") if raw else quote(scope["path"], safe=_UNQUOTED)
    before: str | None = scope.get("app_root_path")
    root = root_path if before is None else before
    places = [(root, root)]
    if before is None and path and root.endswith(path):  # ASGI: the root path is a part of the path
        outside = root.removesuffix(path)
        places.append((outside, outside))
    if root:
        places.append(("", root))  # some servers leave the root path out of the path
    for prefix, found in places:
        prefixed = quoted_root(prefix) + path
        if full == prefixed or full == prefixed + "/":
            return Location(found, None)
        if full.startswith(prefixed + "/"):
            return Location(found, full[len(prefixed) + 1 :])
    return None


def id_in(url: str, below: Collection[str]) -> str | None:
    """The id in the address of an upload, a path or a URL, that is below one of `below`; None: it is nowhere
    there, or no id.

    Which host a URL names is of no account, as it is not for requests: behind a proxy it is any name. Nothing
    is decoded or resolved, and an id has no dot, slash or percent sign, so no other path can be meant.
    """
    path = _path_of(url)
    for prefix in below:
        if path is not None and path.startswith(start := _path_of(prefix) or "/"):
            named = path.removeprefix(start)
            return named if is_id(named) else None
    return None


def _path_of(url: str) -> str | None:
    """The path of a URL with a host or of one without; None: it has none that begins with a slash."""
    scheme, _, rest = url.partition("://")
    if scheme.lower() in {"http", "https"}:
        host, slash, path = rest.partition("/")
        return slash + path if host and slash else None
    return url if url.startswith("/") and not url.startswith("//") else None


def without_body_limit(scope: Scope, app: ASGIApp) -> ASGIApp:
    """`app`, free from a limit on all bodies of a host's: that one is for forms and JSON, and would answer an
    upload in its own bare words."""
    if "starlette.max_body_size" not in scope:
        return app
    from starlette.middleware.body_limit import RequestBodyLimitMiddleware  # older versions have none

    return RequestBodyLimitMiddleware(app, max_body_size=sys.maxsize)


def mounted_elsewhere(scope: Scope, path: str) -> str | None:
    """What is wrong if a framework mounted the app at another path than its own."""
    before: str | None = scope.get("app_root_path")
    if before is None:
        return None
    at = scope.get("root_path", "")[len(before) :]
    if at == path:
        return None
    whole = at if at.endswith(path) else at + path
    return (
        f"this TusApp has the path {path!r} but is mounted at {at!r}: give it its whole path, {whole!r}, and "
        "put its routes into the outermost app, before any mount"
    )
