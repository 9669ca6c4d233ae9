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

_FIELDS: Final = ("id", "code")
"""What records of the logger `tusserve` carry beside their message: the upload, and a refusal's code."""


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and where they are known id, code, error."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, str] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name in _FIELDS:
            value = getattr(record, name, None)
            if value is not None:
                line[name] = str(value)
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line)


class TextFormatter(logging.Formatter):
    """A line for people: time, level, message, and in brackets what else is known."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own name
        known = [f"{name}={value}" for name in _FIELDS if (value := getattr(record, name, None)) is not None]
        return super().formatMessage(record) + (f" [{' '.join(known)}]" if known else "")


def set_up_logging(form: LogFormat) -> None:
    """Send this process's log to standard error: tusserve from INFO on, everybody else's warnings."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("tusserve").setLevel(logging.INFO)
