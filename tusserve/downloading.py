"""GET: the bytes of a complete upload, or a piece of them.

Owns the headers of a download and the two ways of the bytes, from a file of this machine or through
`storage.read`. Knows no record, no lease and not who may ask. `serving` makes a `Download` once that is
settled; nothing here changes anything.
"""

import asyncio
import logging
import os
import re
import stat
import unicodedata
from collections.abc import AsyncGenerator, Mapping, MutableMapping
from contextlib import asynccontextmanager
from pathlib import Path, PurePosixPath
from typing import Any, Final
from urllib.parse import quote

import anyio
from starlette.responses import FileResponse

from tusserve.errors import CursorLost, StorageUnavailable
from tusserve.mounting import Receive, Scope, Send
from tusserve.protocol.fields import imf_fixdate, media_type
from tusserve.protocol.http import Head
from tusserve.protocol.outcomes import Code, Refused
from tusserve.protocol.ranges import NOWHERE, Span, is_known, wanted
from tusserve.protocol.records import to_micros
from tusserve.protocol.tus1 import VERSION
from tusserve.upload import Upload

logger = logging.getLogger("tusserve")

LOST: Final = Refused(code=Code.UPLOAD_LOST, message="The bytes of the upload are no longer here.")
UNAVAILABLE: Final = Refused(code=Code.STORAGE_UNAVAILABLE)
NOT_SATISFIABLE: Final = Refused(code=Code.RANGE_NOT_SATISFIABLE)

ANY_BYTES: Final = "application/octet-stream"
SHOWN: Final = frozenset(
    {
        *("audio/aac", "audio/flac", "audio/mp4", "audio/mpeg", "audio/ogg", "audio/wav", "audio/webm"),
        *("image/avif", "image/gif", "image/jpeg", "image/png", "image/webp"),
        *("video/mp4", "video/ogg", "video/webm", "text/plain"),
    }
)
"""Types that a browser may show by itself, for nothing in them can act. Neither HTML nor SVG nor PDF."""

LONGEST_NAME: Final = 150
_LONGEST_SUFFIX: Final = 20
_TOKEN: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_MEDIA_TYPE: Final = re.compile(rf"{_TOKEN}/{_TOKEN}( *;[\x20-\x7e]*)?")
_TURNS_TEXT_ROUND: Final = frozenset(
    "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
)
_UNSEEN: Final = frozenset({"Cc", "Cn", "Co", "Cs", "Zl", "Zp"})
_PLAIN: Final = re.compile(r"[^ !#$&'()+,.0-9;=@A-Z\[\]^_`a-z{}~-]")
"""What a name in quotes does without: browsers differ on percent signs and backslashes (RFC 6266, D)."""


class CutShort(Exception):
    """The bytes ended before their end, and the client was told a status already. Only a broken connection
    tells it: let this through to the server."""


class _Gone(Exception):
    """The client no longer listens."""


class _File(FileResponse):
    chunk_size = 256 * 1024


class Download:
    """The answer to one GET of a complete upload."""

    def __init__(self, upload: Upload, head: Head) -> None:
        self._upload = upload
        self._head = head
        self._started = False

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> Refused | None:
        """Send it all, or as much as the client waits for. Or nothing, and why. Raises `CutShort`."""
        upload = self._upload
        headers = headers_of(upload)
        span = wanted(self._head, upload.offset, headers["etag"], headers["last-modified"])
        path = upload.local_path()
        try:
            async with self._while_there(receive, send) as listening:
                if is_known(self._head, headers["etag"]):
                    await self._say_known(headers, listening)
                elif span == NOWHERE:
                    return NOT_SATISFIABLE
                elif path is not None:
                    await self._from_file(path, span, headers, scope, receive, listening)
                else:
                    await self._from_storage(span, headers, listening)
        except _Gone:
            return None
        except Exception as error:
            if self._started:
                raise CutShort(f"the download of upload {upload.id} broke off") from error
            if not isinstance(error, CursorLost | StorageUnavailable):
                raise
            refused = LOST if isinstance(error, CursorLost) else UNAVAILABLE
            logger.error(
                "upload %s cannot be read: %s",
                upload.id,
                error,
                extra={"id": upload.id, "code": refused.code},
            )
            return refused
        return None

    @asynccontextmanager
    async def _while_there(self, receive: Receive, send: Send) -> AsyncGenerator[Send]:
        """A `send` that raises `_Gone` once the client went away: no file is read to its end for nobody.

        It is not cancelled: a file is closed in a thread, for which a cancelled scope would not wait.
        """
        gone = False

        async def look_out() -> None:
            nonlocal gone
            while (await receive())["type"] != "http.disconnect":
                pass
            gone = True

        async def listening(message: MutableMapping[str, Any]) -> None:
            # Neither storage nor server need ever wait, and others, the look-out among them, have to run.
            await asyncio.sleep(0)
            # The start goes out in any case: frameworks complain of a request that nobody answered.
            if gone and self._started:
                raise _Gone
            self._started = True
            try:
                await send(message)
            except OSError as error:
                raise _Gone from error

        watch = asyncio.create_task(look_out())
        try:
            yield listening
        finally:
            watch.cancel()
            await asyncio.wait({watch})

    async def _say_known(self, headers: Mapping[str, str], send: Send) -> None:
        kept = {name: headers[name] for name in ("tus-resumable", "etag", "last-modified", "cache-control")}
        await send({"type": "http.response.start", "status": 304, "headers": _raw(kept)})
        await send({"type": "http.response.body"})

    async def _from_file(
        self,
        path: Path,
        span: Span | None,
        headers: Mapping[str, str],
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        """Through Starlette, which lets a server that can send the file by itself."""
        try:
            found = await anyio.to_thread.run_sync(os.stat, path)
        except (FileNotFoundError, NotADirectoryError):
            raise CursorLost("its file is gone") from None
        except OSError as error:
            raise StorageUnavailable(str(error)) from error
        if not stat.S_ISREG(found.st_mode) or found.st_size != self._upload.offset:
            raise CursorLost("its file is another")
        # What the request wants was decided above, the same for every storage: Starlette only sends it.
        ranges = [] if span is None else [(b"range", b"bytes=%d-%d" % (span.start, span.stop - 1))]
        asked = {
            **scope,
            "method": "HEAD" if self._head.method == "HEAD" else "GET",
            "headers": ranges,
            "asgi": {**scope.get("asgi", {}), "spec_version": "2.4"},  # no second look-out
        }
        await _File(path, headers=headers, stat_result=found)(asked, receive, send)

    async def _from_storage(self, span: Span | None, headers: Mapping[str, str], send: Send) -> None:
        """Piece by piece, as the storage gives them."""
        length = self._upload.offset
        start, stop = span or (0, length)
        told = {**headers, "content-length": str(stop - start)}
        if span is not None:
            told["content-range"] = f"bytes {start}-{stop - 1}/{length}"
        async with self._upload.open(start, stop) as body:
            status = 200 if span is None else 206
            await send({"type": "http.response.start", "status": status, "headers": _raw(told)})
            if self._head.method != "HEAD":  # where an override made it a GET
                async for piece in body:
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body"})


def headers_of(upload: Upload) -> dict[str, str]:
    """What is said of an upload's content, whichever piece of it is sent."""
    sealed_at = upload.completed_at or upload.created_at
    given = upload.content_type or ""
    content_type = given if _MEDIA_TYPE.fullmatch(given) else ANY_BYTES
    return {
        "tus-resumable": VERSION,
        "content-type": content_type,
        "content-disposition": disposition(upload.filename, shown=media_type(content_type) in SHOWN),
        "x-content-type-options": "nosniff",
        "content-security-policy": "sandbox",
        "accept-ranges": "bytes",
        # Complete uploads do not change, and an id that is used again is completed at another time.
        "etag": f'"{upload.id}-{to_micros(sealed_at):x}"',
        "last-modified": imf_fixdate(sealed_at),
        "cache-control": "private, no-cache",  # to be kept, but asked about: `authorize` has the last word
    }


def disposition(filename: str | None, *, shown: bool) -> str:
    """The Content-Disposition (RFC 6266) for a name that a client made up."""
    how = "inline" if shown else "attachment"
    name = safe_name(filename or "")
    if not name:
        return how
    plain = _PLAIN.sub("_", name)
    if plain == name:
        return f'{how}; filename="{plain}"'
    return f"{how}; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


def safe_name(filename: str) -> str:
    """The name without folders and without what people do not see; may be nothing."""
    seen = "".join(
        letter
        for letter in filename
        if unicodedata.category(letter) not in _UNSEEN and letter not in _TURNS_TEXT_ROUND
    )
    name = re.split(r"[\\/]", seen)[-1].strip(" .")
    suffix = PurePosixPath(name).suffix
    if len(name) <= LONGEST_NAME or len(suffix) > _LONGEST_SUFFIX:
        return name[:LONGEST_NAME]
    return name[: LONGEST_NAME - len(suffix)] + suffix


def _raw(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("ascii"), value.encode("latin-1")) for name, value in headers.items()]
