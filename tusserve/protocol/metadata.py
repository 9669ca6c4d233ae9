"""The client's metadata: the Upload-Metadata header as a mapping that keeps what was sent.

Owns the grammar of that header and its limit. Knows nothing of records and requests. Codecs parse with it,
hosts read it in their hooks and write it for uploads that they open themselves.
"""

import binascii
from collections.abc import Iterator, Mapping
from typing import Final

from tusserve.protocol.outcomes import Code, Refused

LARGEST_METADATA: Final = 8 * 1024
"""The most characters that an Upload-Metadata header may have."""


class Metadata(Mapping[str, str]):
    """What a client said about its upload, in the order in which it said it. Immutable.

    Values are the client's words and nobody has looked at them: never use one as a path or in a header as it
    is. They are decoded as UTF-8, with U+FFFD for what is not; `bytes(key)` has them undecoded, `raw` is the
    header exactly as it was sent. Two are equal if their `raw` is; with another mapping its items count.
    """

    __slots__ = ("_raw", "_values")

    def __init__(self) -> None:
        """Metadata of a client that said nothing. Others come from `parse` and `load`."""
        self._raw = ""
        self._values: dict[str, bytes] = {}

    @classmethod
    def parse(cls, raw: str | None) -> "Metadata | Refused":
        """The metadata that a header says; None or nothing in it: no metadata.

        Pairs are separated by commas, with optional space around them. Each is a key, then, unless its value
        is empty, one space and the value in padded Base64 (TUS 1.0.0, Upload-Metadata). Keys are visible
        ASCII without commas and come once.
        """
        metadata = cls()
        if raw is None or not raw.strip(" \t"):
            return metadata
        if len(raw) > LARGEST_METADATA:
            return Refused(code=Code.METADATA_TOO_LARGE)
        values = metadata._values
        for pair in raw.split(","):
            key, _, encoded = pair.strip(" \t").partition(" ")
            if not _is_key(key):
                return _invalid("Each key in Upload-Metadata is one or more visible ASCII characters.")
            if key in values:
                return _invalid("Upload-Metadata has a key twice.")
            try:
                values[key] = binascii.a2b_base64(encoded, strict_mode=True) if encoded else b""
            except ValueError:  # binascii.Error is one, and so is the complaint about non-ASCII text
                return _invalid("Each value in Upload-Metadata is one space after its key, in padded Base64.")
        metadata._raw = raw
        return metadata

    @classmethod
    def load(cls, raw: str | None) -> "Metadata":
        """The metadata of a header that `parse` took before, such as a record's.

        Raises `ValueError` for any other header.
        """
        metadata = cls.parse(raw)
        if isinstance(metadata, Refused):
            raise ValueError(metadata.message or metadata.code)
        return metadata

    @staticmethod
    def encode(values: Mapping[str, str | bytes]) -> str:
        """The header that says `values`; text is encoded as UTF-8.

        Raises `ValueError` for a key that cannot be sent and for more than 8 KiB in all.
        """
        for key in values:
            if not _is_key(key):
                raise ValueError(f"a metadata key is visible ASCII without commas, not {key!r}")
        raw = ",".join(_pair(key, value) for key, value in values.items())
        if len(raw) > LARGEST_METADATA:
            raise ValueError(f"metadata takes at most {LARGEST_METADATA} characters, not {len(raw)}")
        return raw

    @property
    def raw(self) -> str:
        """The header exactly as it was sent; empty if there was none."""
        return self._raw

    def bytes(self, key: str) -> bytes:
        """The value of `key` as the client encoded it. Raises `KeyError`."""
        return self._values[key]

    def __getitem__(self, key: str) -> str:
        return self._values[key].decode("utf-8", "replace")

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, key: object) -> bool:
        return key in self._values

    def __eq__(self, other: object) -> bool:
        return self._raw == other._raw if isinstance(other, Metadata) else super().__eq__(other)

    def __hash__(self) -> int:
        return hash(self._raw)

    def __repr__(self) -> str:
        return f"Metadata({dict(self)})"


def _is_key(text: str) -> bool:
    return bool(text) and text.isascii() and text.isprintable() and " " not in text and "," not in text


def _pair(key: str, value: str | bytes) -> str:
    content = value.encode("utf-8") if isinstance(value, str) else value
    return f"{key} {binascii.b2a_base64(content, newline=False).decode('ascii')}" if content else key


def _invalid(message: str) -> Refused:
    return Refused(code=Code.INVALID_METADATA, message=message)
