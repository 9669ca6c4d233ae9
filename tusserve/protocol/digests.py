"""The checksum that a client sends with a body: which algorithms there are, and how one is written.

Owns the algorithms and the grammar of Upload-Checksum; hashes nothing but an empty body. Knows no upload.
Codecs parse with it; the room that hashes bodies takes its algorithms from here.
"""

import hashlib
import zlib
from base64 import b64decode
from binascii import Error
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Protocol

from tusserve.protocol.outcomes import Code, Refused


class Hash(Protocol):
    """What is fed with bytes and tells their digest."""

    def update(self, data: bytes, /) -> None:
        """These bytes follow those before."""

    def digest(self) -> bytes:
        """Of all bytes so far."""


class Crc32:
    """CRC-32 as zip and Ethernet have it, four bytes, the most significant first."""

    def __init__(self) -> None:
        self._value = 0

    def update(self, data: bytes, /) -> None:
        """These bytes follow those before."""
        self._value = zlib.crc32(data, self._value)

    def digest(self) -> bytes:
        """Of all bytes so far."""
        return self._value.to_bytes(4, "big")


def _hashlib(name: str) -> Callable[[], Hash]:
    # Against accidents on the way, not against people: so MD5 and SHA-1 work where policies forbid them.
    return lambda: hashlib.new(name, usedforsecurity=False)


HASHES: Final[Mapping[str, Callable[[], Hash]]] = MappingProxyType(
    {
        "sha1": _hashlib("sha1"),
        "sha256": _hashlib("sha256"),
        "sha512": _hashlib("sha512"),
        "md5": _hashlib("md5"),
        "crc32": Crc32,
    }
)
"""The algorithms by the names of Tus-Checksum-Algorithm, in the order in which they are announced."""


@dataclass(frozen=True, slots=True)
class Digest:
    """What the bytes of a body must hash to."""

    algorithm: str
    value: bytes

    @property
    def is_of_nothing(self) -> bool:
        """Whether a body of no bytes has it."""
        return HASHES[self.algorithm]().digest() == self.value

    @classmethod
    def parse(cls, told: str) -> "Digest | Refused":
        """The value of Upload-Checksum: a name, one space, the digest in Base64."""
        algorithm, _, encoded = told.partition(" ")
        if algorithm not in HASHES:
            return Refused(code=Code.CHECKSUM_UNSUPPORTED)
        try:
            value = b64decode(encoded.encode("ascii"), validate=True)
        except (Error, ValueError):
            return Refused(code=Code.INVALID_CHECKSUM)
        if len(value) != len(HASHES[algorithm]().digest()):
            return Refused(code=Code.INVALID_CHECKSUM)
        return cls(algorithm, value)
