"""What was typed, as values: sizes, durations, networks, addresses.

Owns the grammar of the command line's values and the one sentence for each that is wrong; starts nothing.
The commands in `cli` call it.
"""

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final, Literal, TypeAlias, TypeVar

from tusserve.config import LONGEST_PERIOD, is_address
from tusserve.protocol.records import Expiry, UploadState

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
Durability: TypeAlias = Literal["full", "checkpoint", "none"]
LogFormat: TypeAlias = Literal["text", "json"]
T = TypeVar("T")

PRIVATE: Final = "private"
"""The word for the networks from which a proxy is usually heard: this machine and the private ranges."""

_PRIVATE_NETWORKS: Final = "127.0.0.0/8,::1,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,fc00::/7,fe80::/10"
_UNITS: Final = {
    "": 1,
    "B": 1,
    "kB": 1000,
    "KB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
    "TB": 1000**4,
    "KiB": 1024,
    "MiB": 1024**2,
    "GiB": 1024**3,
    "TiB": 1024**4,
}
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_LARGEST_SIZE: Final = 2**63 - 1
_MOST_WORKERS: Final = 256
_SQLITE: Final = "sqlite:///"


class CommandError(Exception):
    """The command cannot be carried out: one sentence for the one who typed it, exit code 2."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AppOptions:
    """What is needed to open a folder of uploads, and the name of the app that they are of."""

    folder: Path
    state: Path
    durability: Durability
    expiry: Expiry | None
    name: str = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """What only `serve` needs. `extensions` None: all there are; `proxies` None: nobody is believed;
    `cors_origins` None: no page of another origin."""

    host: str
    port: int
    path: str
    max_size: int
    extensions: tuple[str, ...] | None
    base_url: str | None
    proxies: tuple[Network, ...] | None
    log_format: LogFormat
    cors_origins: tuple[str, ...] | None = None
    downloads: bool = False
    workers: int = 1


def read(option: str, text: str, parse: Callable[[str], T]) -> T:
    """`text` parsed; a `CommandError` that names the option and its environment variable where it cannot."""
    try:
        return parse(text)
    except ValueError as error:
        variable = "TUSSERVE_" + option.lstrip("-").replace("-", "_").upper()
        raise CommandError(f"{option} (or {variable}): {error}") from None


def parse_size(text: str) -> int:
    """Bytes: `1048576`, `10MB` (powers of 1000), `50GiB` (powers of 1024)."""
    match = re.fullmatch(r"([0-9]{1,19})([A-Za-z]*)", text)
    if match is None or match[2] not in _UNITS:
        raise ValueError(
            f"{text!r} is not a size; write bytes, or a whole number and one of kB MB GB TB KiB MiB GiB TiB"
        )
    size = int(match[1]) * _UNITS[match[2]]
    if not 0 < size <= _LARGEST_SIZE:
        raise ValueError(f"{text!r} is out of range; a size is at least 1 byte and below 8 EiB")
    return size


def parse_duration(text: str) -> timedelta | None:
    """A period: `90s`, `30m`, `48h`, `7d`. `off` is None: never."""
    if text == "off":
        return None
    match = re.fullmatch(r"([0-9]{1,12})([smhd])", text)
    if match is None:
        raise ValueError(
            f"{text!r} is not a duration; write a whole number and s, m, h or d, as in 48h, or off"
        )
    seconds = int(match[1]) * _SECONDS[match[2]]
    if not 0 < seconds <= LONGEST_PERIOD.total_seconds():
        raise ValueError(f"{text!r} is out of range; write 1s to 36500d, or off for never")
    return timedelta(seconds=seconds)


def parse_port(text: str) -> int:
    """A TCP port; 0 lets the machine choose one."""
    if not re.fullmatch(r"[0-9]{1,5}", text) or int(text) > 65535:
        raise ValueError(f"{text!r} is not a port; write a number from 0 to 65535")
    return int(text)


def parse_workers(text: str) -> int:
    """How many processes serve."""
    if not re.fullmatch(r"[0-9]{1,4}", text) or not 1 <= int(text) <= _MOST_WORKERS:
        raise ValueError(f"{text!r} is no number of workers; write one from 1 to {_MOST_WORKERS}")
    return int(text)


def parse_folder(text: str) -> Path:
    """The folder of uploads."""
    if not text:
        raise ValueError("an empty name is no folder; write . for the one you are in")
    return Path(text)


def parse_path(text: str) -> str:
    """The public path of uploads, without the slash at its end."""
    if not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+/?", text) or {".", ".."} & set(text.split("/")):
        raise ValueError(f"{text!r} is not a path; write one like /files/, of letters, digits and . _ ~ -")
    return text.rstrip("/")


def parse_state(text: str) -> Path:
    """Where the records are kept: `sqlite:///` and the path of a file."""
    if not text.startswith(_SQLITE) or len(text) == len(_SQLITE) or text.endswith("/"):
        raise ValueError(
            f"{text!r} is no place for the records; write sqlite:///uploads.db or sqlite:////srv/uploads.db"
        )
    path = text.removeprefix(_SQLITE)
    if path.startswith(":memory:"):
        raise ValueError("the records need a file, as in sqlite:///uploads.db: in memory they would be lost")
    if "?" in path:
        raise ValueError(
            f"{text!r} has a question mark: the path of a file follows sqlite:///, and no settings"
        )
    return Path(path)


def parse_states(text: str) -> frozenset[UploadState]:
    """States of uploads, `receiving,finishing`, in any case."""
    try:
        return frozenset(UploadState(word.strip().upper()) for word in text.split(","))
    except ValueError:
        known = ", ".join(state.value.lower() for state in UploadState)
        raise ValueError(f"{text!r} names no states; write some of {known}, with commas between") from None


def parse_count(text: str) -> int:
    """A number of things: at least one."""
    if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) == 0:
        raise ValueError(f"{text!r} is not a number of uploads; write one from 1 on")
    return int(text)


def parse_extensions(text: str) -> tuple[str, ...]:
    """Names with commas between them. Whether they exist is for the app to say."""
    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise ValueError(f"{text!r} is no list; write names with commas between them")
    return names


def parse_origins(text: str) -> tuple[str, ...]:
    """Origins of pages with commas or spaces between them. What an origin is, is for the app to say."""
    names = tuple(text.replace(",", " ").split())
    if not names:
        raise ValueError(f"{text!r} is no origin; write one like https://app.example.com, or *")
    return names


def parse_networks(text: str) -> tuple[Network, ...]:
    """Networks of trusted proxies, `10.0.0.0/8,192.0.2.7`; `private` for this machine and private ranges."""
    found: list[Network] = []
    for name in (_PRIVATE_NETWORKS if text == PRIVATE else text).split(","):
        try:
            found.append(ipaddress.ip_network(name.strip()))
        except ValueError:
            raise ValueError(
                f"{name!r} is not a network; write them like 10.0.0.0/8,192.0.2.7 or the word {PRIVATE}"
            ) from None
    return tuple(found)


def parse_base_url(text: str) -> str:
    """The address under which clients see this server, without the path of uploads."""
    if not re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#]*)?", text) or not is_address(text):
        raise ValueError(f"{text!r} is not an address; write one like https://uploads.example.com")
    return text.rstrip("/")


def parse_choice(*choices: str) -> Callable[[str], str]:
    """A parser that takes one of `choices` and nothing else."""

    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(f"{text!r} is none of {', '.join(choices)}")
        return text

    return parse


def read_expiry(initial: str, idle: str) -> Expiry | None:
    """Both periods, or None where both are off."""
    first = read("--expire-initial", initial, parse_duration)
    later = read("--expire-idle", idle, parse_duration)
    if first is None and later is None:
        return None
    if first is None or later is None:
        raise CommandError("--expire-initial and --expire-idle must both be off, or neither")
    return Expiry(initial=first, idle=later)
