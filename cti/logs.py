"""Logs: one JSON object a line for machines, or coloured text for a person at a terminal. Set up once, at the start."""

from __future__ import annotations

import logging
import sys
from typing import TextIO

import structlog

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def set_up(*, json: bool, level: str, to: TextIO | None = None) -> None:
    """Sends all logs, also those of libraries, to `to` (default: stderr). Tracebacks go as data in JSON."""
    stream = to or sys.stderr
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    rendering: list[structlog.typing.Processor]
    if json:
        # without the variables of each frame: they may hold callers' numbers and names
        frames = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        rendering = [structlog.processors.ExceptionRenderer(frames), structlog.processors.JSONRenderer()]
    else:
        rendering = [
            structlog.dev.ConsoleRenderer(
                colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback
            )
        ]
    structlog.configure(
        processors=[*shared, *rendering],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(LEVELS[level], logging.WARNING))


def none() -> None:
    """Writes no logs: for commands whose own words say everything."""
    structlog.configure(processors=[_drop], cache_logger_on_first_use=False)
    logging.getLogger().handlers[:] = [logging.NullHandler()]


def _drop(
    _logger: object, _method: str, _entry: structlog.typing.EventDict
) -> structlog.typing.EventDict:  # pragma: no cover - raises by design
    raise structlog.DropEvent
