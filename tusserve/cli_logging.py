"""How the server's own log lines look.

Owns the two formats and where they go (standard error); knows nothing of what is logged. `cli_serve` and
`cli_sweep` set it up once; the library itself never touches the logging of a process.
"""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Final

from tusserve.cli_options import LogFormat

_FIELDS: Final = {
    "id": "id",
    "code": "code",
    "status": "status",
    "app": "name",
    "owner": "owner",
    "bytes": "bytes",
    "seconds": "seconds",
    "reason": "reason",
}
"""What records of the logger `tusserve` carry beside their message, and how it is called in a line: the
upload, an error's code and status, and of an upload that came to its end whose it was and what came."""


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and where they are known `_FIELDS` and error."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, str | int | float] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name, value in _known(record):
            line[name] = value if isinstance(value, int | float) else str(value)
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line)


class TextFormatter(logging.Formatter):
    """A line for people: time, level, message, and in brackets what else is known."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own name
        known = [f"{name}={_one_word(str(value))}" for name, value in _known(record)]
        return super().formatMessage(record) + (f" [{' '.join(known)}]" if known else "")


def _known(record: logging.LogRecord) -> list[tuple[str, object]]:
    found = [(told, getattr(record, name, None)) for name, told in _FIELDS.items()]
    return [(told, value) for told, value in found if value is not None]


def _one_word(text: str) -> str:
    """What others chose must not look like a line, or a field, of its own."""
    plain = text.isprintable() and not any(letter in ' "[]=' for letter in text)
    return text if plain else json.dumps(text)


def set_up_logging(form: LogFormat) -> None:
    """Send this process's log to standard error: tusserve from INFO on, everybody else's warnings."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("tusserve").setLevel(logging.INFO)
