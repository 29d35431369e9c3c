"""Structured logs: one JSON object a line for machines, a short line for a terminal. Fields are keyword arguments."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

_FIELDS = "stokehold_fields"


class Logger:
    """A named logger whose calls take fields: `log.info("admitted", job="team-a/llama", nodes=4)`."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(f"stokehold.{name}")

    def debug(self, message: str, **fields: Any) -> None:
        """For developers."""
        self._log(logging.DEBUG, message, fields)

    def info(self, message: str, **fields: Any) -> None:
        """A decision or a change of state: the audit trail."""
        self._log(logging.INFO, message, fields)

    def warning(self, message: str, **fields: Any) -> None:
        """Something that goes wrong and is handled."""
        self._log(logging.WARNING, message, fields)

    def error(self, message: str, **fields: Any) -> None:
        """Something that somebody must look at."""
        self._log(logging.ERROR, message, fields)

    def exception(self, message: str, **fields: Any) -> None:
        """The same, with the exception that is being handled."""
        self._log(logging.ERROR, message, fields, exc_info=True)

    def _log(self, level: int, message: str, fields: dict[str, Any], *, exc_info: bool = False) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(level, message, extra={_FIELDS: fields}, exc_info=exc_info)


def get(name: str) -> Logger:
    """The logger of a part of the program."""
    return Logger(name)


def configure(*, level: str = "INFO", as_json: bool = True) -> None:
    """Send everything to standard error; libraries only from WARNING on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if as_json else LineFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("stokehold").setLevel(level)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, then the fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Render the record."""
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, _FIELDS, {}),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


class LineFormatter(logging.Formatter):
    """`12:00:00 INFO  admitted job=team-a/llama nodes=4`."""

    def format(self, record: logging.LogRecord) -> str:
        """Render the record."""
        time = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S")
        fields = "".join(f" {key}={value}" for key, value in getattr(record, _FIELDS, {}).items())
        line = f"{time} {record.levelname:<7} {record.getMessage()}{fields}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line
