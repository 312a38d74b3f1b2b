"""Logging: one call at start; every logger of the process then writes the same text or JSON lines to stderr."""

import logging
import sys
from types import TracebackType

import structlog

_active: tuple[logging.Handler, str] | None = None
"""Our handler and the format it writes, once configured."""


def configure(level: str, log_format: str) -> None:
    """Send the standard library's and structlog's loggers to stderr as `log_format`: "text" or "json".

    Python's warnings and an exception that ends the process go the same way. A second call replaces the first.
    """
    global _active
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),  # libraries log through ours: log(40, "%s", text)
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: structlog.types.Processor = (
        structlog.processors.JSONRenderer()
        if log_format == "json"
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            pad_event_to=0,
            # The default one shows local variables where `rich` is installed, and with them secrets.
            exception_formatter=structlog.dev.plain_traceback,
        )
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.StackInfoRenderer(),
                structlog.processors.format_exc_info,
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    if _active is not None:
        root.removeHandler(_active[0])
    root.addHandler(handler)
    root.setLevel(level)
    _active = (handler, log_format)
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)
    sys.excepthook = _log_crash


def get(name: str) -> structlog.stdlib.BoundLogger:
    """The logger called `name`; takes key-value pairs: ``log.info("connected", streams=10)``."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger


def json_lines() -> bool:
    """Whether stderr was promised to hold one JSON object a line."""
    return _active is not None and _active[1] == "json"


def _log_crash(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
    else:
        get("marketfeed").critical("crashed", exc_info=(kind, error, trace))
