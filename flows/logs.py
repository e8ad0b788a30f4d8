"""What a person reads while a flow runs."""

import logging

from storage.errors import StressVisionError


def log_our_errors_in_one_line() -> None:
    """Prefect logs every exception with its traceback; those that a user is meant to read need none."""
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(_without_traceback)


def _without_traceback(record: logging.LogRecord) -> bool:
    if record.exc_info and isinstance(record.exc_info[1], StressVisionError):
        record.exc_info = None
    return True
