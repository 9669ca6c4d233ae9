"""What a host may set, checked once.

Owns the frozen settings and the lists that hosts need for their own CORS; knows no plug-in.
`TusApp` makes them; the engine and the reaper read them.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType, UnionType
from typing import Final
from urllib.parse import urlsplit

from tusserve.errors import ConfigError
from tusserve.protocol.records import Expiry
from tusserve.protocol.tus1 import EXTENSIONS, Extension

MiB: Final = 1024 * 1024
GiB: Final = 1024 * MiB

METHODS: Final = ("OPTIONS", "POST", "HEAD", "PATCH", "DELETE", "GET")
"""The methods that a browser on another origin must be allowed."""

ALLOW_HEADERS: Final = (
    "Authorization",
    "Content-Type",
    "If-None-Match",
    "If-Range",
    "Range",
    "Tus-Resumable",
    "Upload-Checksum",
    "Upload-Concat",
    "Upload-Defer-Length",
    "Upload-Length",
    "Upload-Metadata",
    "Upload-Offset",
    "X-HTTP-Method-Override",
    "X-Request-ID",
    "X-Requested-With",
)
"""The request headers that TUS clients in browsers send, and those of a download in pieces."""

EXPOSE_HEADERS: Final = (
    "Accept-Ranges",
    "Content-Disposition",
    "Content-Range",
    "ETag",
    "Location",
    "Retry-After",
    "Tus-Checksum-Algorithm",
    "Tus-Extension",
    "Tus-Max-Size",
    "Tus-Resumable",
    "Tus-Version",
    "Upload-Concat",
    "Upload-Defer-Length",
    "Upload-Expires",
    "Upload-Length",
    "Upload-Metadata",
    "Upload-Offset",
)
"""The response headers that pages must be able to read, to upload and to download."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """How long tusserve waits for others.

    `idle`: for the next byte of a body. `min_rate`: bytes per second that a body must bring on average over
    `idle` (None: any). `hook`: for one call of a hook. `finish_wait`: how long a request waits for the
    finishing or ending that it started, before it answers that this goes on.
    """

    idle: timedelta = timedelta(seconds=60)
    min_rate: int | None = None
    hook: timedelta = timedelta(seconds=30)
    finish_wait: timedelta = timedelta(seconds=20)


LONGEST_PERIOD: Final = timedelta(days=36500)
"""What lasts longer has no date that can be told."""
DEFAULT_EXPIRY: Final = Expiry()
DEFAULT_TIMEOUTS: Final = Timeouts()


def utc_now() -> datetime:
    """The clock of an app that was not given one."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything about an app that is not a plug-in or a hook. Raises `ConfigError` for what cannot be."""

    name: str = "default"
    extensions: frozenset[Extension] = frozenset(EXTENSIONS)
    max_size: int = 50 * GiB
    sniff_size: int = 4096
    min_first_chunk: int = 0
    max_bodies: int = 2000
    expiry: Expiry | None = DEFAULT_EXPIRY
    sweep_every: timedelta | None = timedelta(minutes=1)
    timeouts: Timeouts = DEFAULT_TIMEOUTS
    base_url: str | None = None
    downloads: bool = False
    idempotent_delete: bool = False
    clock: Callable[[], datetime] = utc_now

    @property
    def expiring(self) -> Expiry | None:
        """When unfinished uploads expire; None: never. They do exactly if the extension is announced."""
        return self.expiry if "expiration" in self.extensions else None

    def __post_init__(self) -> None:
        _check_types(self)
        _check(bool(self.name), "name must not be empty")
        _check(self.max_size > 0, f"max_size must be at least 1 byte, not {self.max_size}")
        _check(self.sniff_size > 0, f"sniff_size must be at least 1 byte, not {self.sniff_size}")
        _check(
            0 <= self.min_first_chunk <= self.sniff_size,
            f"min_first_chunk must be from 0 to sniff_size ({self.sniff_size}), not {self.min_first_chunk}",
        )
        _check(self.max_bodies > 0, f"max_bodies must be at least 1, not {self.max_bodies}")
        for extension in self.extensions:
            if extension.startswith("creation-") or extension == "concatenation":
                _check("creation" in self.extensions, f"{extension} needs creation")
        if "concatenation-unfinished" in self.extensions:
            _check("concatenation" in self.extensions, "concatenation-unfinished needs concatenation")
        if "expiration" in self.extensions:
            _check(self.expiry is not None, "the extension expiration needs an expiry")
        if self.expiry is not None:
            _check_expiry(self.expiry)
        _check_timeouts(self.timeouts)
        _check(self.clock().tzinfo is not None, "clock must give aware datetimes, like datetime.now(UTC)")
        if self.sweep_every is not None:
            _check(self.sweep_every > timedelta(), "sweep_every must be longer than nothing, or None")
        if self.base_url is not None:
            _check(
                is_address(self.base_url) and _is_visible_ascii(self.base_url),
                "base_url is a URL in ASCII that starts with http:// or https:// and a host, not "
                f"{self.base_url!r}",
            )


_PERIOD: Final = (timedelta, "a timedelta")
_PERIOD_OR_NONE: Final = (timedelta | None, "a timedelta or None")
_NUMBER: Final = (int, "a whole number")
_TYPES: Final[Mapping[str, tuple[type | UnionType, str]]] = MappingProxyType(
    {
        "name": (str, "text"),
        "max_size": _NUMBER,
        "sniff_size": _NUMBER,
        "min_first_chunk": _NUMBER,
        "max_bodies": _NUMBER,
        "expiry": (Expiry | None, "an Expiry or None"),
        "expiry.initial": _PERIOD,
        "expiry.idle": _PERIOD,
        "expiry.finished": _PERIOD_OR_NONE,
        "expiry.tombstone": _PERIOD,
        "sweep_every": _PERIOD_OR_NONE,
        "timeouts": (Timeouts, "a Timeouts"),
        "timeouts.idle": _PERIOD,
        "timeouts.min_rate": (int | None, "a whole number of bytes per second or None"),
        "timeouts.hook": _PERIOD,
        "timeouts.finish_wait": _PERIOD,
        "base_url": (str | None, "a URL or None"),
    }
)


def _check_types(settings: Settings) -> None:
    """What has another type than it needs is told by its name, not by whatever fails first."""
    for name, (kind, words) in _TYPES.items():
        given: object = settings
        for part in name.split("."):
            given = None if given is None else getattr(given, part)
        if given is None and settings.expiry is None and name.startswith("expiry."):
            continue
        _check(isinstance(given, kind), f"{name} is {words}, not {given!r}")


def is_address(url: str) -> bool:
    """Whether it begins with http:// or https://, a host and, if one is given, a port that there can be."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises for one that cannot be
    except ValueError:
        return False
    host = parts.netloc.rpartition("@")[2]
    after = host.rpartition("]")[2] if host.startswith("[") else ""
    return url.startswith(("http://", "https://")) and bool(parts.hostname) and after[:1] in ("", ":")


def _is_visible_ascii(text: str) -> bool:
    return all("!" <= letter <= "~" for letter in text)


def _check_expiry(expiry: Expiry) -> None:
    for word, period in (("initial", expiry.initial), ("idle", expiry.idle), ("finished", expiry.finished)):
        _check(period is None or period > timedelta(), f"expiry.{word} must be longer than nothing")
        _check(period is None or period <= LONGEST_PERIOD, f"expiry.{word} is longer than a century")
    _check(timedelta() <= expiry.tombstone <= LONGEST_PERIOD, "expiry.tombstone is negative, or too long")


def _check_timeouts(timeouts: Timeouts) -> None:
    for word, period in (
        ("idle", timeouts.idle),
        ("hook", timeouts.hook),
        ("finish_wait", timeouts.finish_wait),
    ):
        _check(period > timedelta(), f"timeouts.{word} must be longer than nothing")
    _check(timeouts.min_rate is None or timeouts.min_rate > 0, "timeouts.min_rate must be above 0, or None")


def narrowed(
    wanted: Collection[Extension] | None, expiry: Expiry | None, *, joins: bool
) -> frozenset[Extension]:
    """The extensions of an app: all that it can, or those of `wanted`. `joins`: its storage can make one
    upload of others. `ConfigError` for an unknown one, and for one that cannot be."""
    able = frozenset(
        each
        for each in EXTENSIONS
        if (each != "expiration" or expiry is not None) and (joins or not each.startswith("concatenation"))
    )
    if wanted is None:
        return able
    _check(not isinstance(wanted, str), f"extensions are several names, like [{wanted!r}], not one text")
    for extension in wanted:
        _check(
            extension in EXTENSIONS,
            f"unknown extension {extension!r}; there are {', '.join(EXTENSIONS)}",
        )
        _check(
            joins or not extension.startswith("concatenation"),
            f"{extension} needs a storage that can join uploads (`concatenate`)",
        )
    return frozenset(wanted)


def _check(holds: bool, sentence: str) -> None:
    if not holds:
        raise ConfigError(sentence)
