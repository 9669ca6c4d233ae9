"""The grammar of single header fields: numbers, ids, media types, dates.

Owns what a well-formed value is; knows no header by name, no status and no upload. Codecs call it, and the
app checks with it the ids that a host chooses. Everything here runs on each request, hence no `re`.
"""

from datetime import UTC, datetime
from typing import Final

LARGEST_NUMBER: Final = 2**63 - 1
LONGEST_ID: Final = 128
_MOST_DIGITS: Final = len(str(LARGEST_NUMBER))


def parse_number(text: str) -> int | None:
    """The non-negative whole number that `text` is; None: it is not one, or above 2**63 - 1.

    One to nineteen ASCII digits and nothing else: no sign, space, underscore, comma or other script's digits.
    """
    # `isdigit` alone takes the digits of every script, and `int` signs, spaces and underscores.
    if len(text) > _MOST_DIGITS or not (text.isascii() and text.isdigit()):
        return None
    number = int(text)
    return number if number <= LARGEST_NUMBER else None


def is_id(text: str) -> bool:
    """Whether `text` can name an upload: 1 to 128 of A-Z, a-z, 0-9, `-` and `_`.

    No dot, slash or percent sign, so an id is a safe file name and is its own form in a URL.
    """
    if not 0 < len(text) <= LONGEST_ID or not text.isascii():
        return False
    return text.replace("-", "0").replace("_", "0").isalnum()


def is_text(text: str) -> bool:
    """Whether it can be stored and sent: no lone surrogates, which only Python has."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def media_type(content_type: str) -> str:
    """The type and subtype of a Content-Type in lower case, its parameters left out."""
    return content_type.partition(";")[0].strip(" \t").lower()


_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def imf_fixdate(moment: datetime) -> str:
    """An aware `moment` as RFC 9110 (5.6.7) wants dates, such as `Sun, 06 Nov 1994 08:49:37 GMT`."""
    # Not strftime: its names of days and months follow the locale of the process.
    if moment.tzinfo is not UTC:
        moment = moment.astimezone(UTC)
    return (
        f"{_DAYS[moment.weekday()]}, {moment.day:02d} {_MONTHS[moment.month - 1]} {moment.year:04d} "
        f"{moment.hour:02d}:{moment.minute:02d}:{moment.second:02d} GMT"
    )
