"""How a resident program writes what it does: one JSON object a line to stderr, which its supervisor keeps."""

from __future__ import annotations

import logging
import sys

import structlog


def log_to_stderr() -> None:
    """From level info on, with the time in UTC and tracebacks as text."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
    )
