"""What a person reads while a flow runs."""

import logging

from storage.errors import StressVisionError


def log_our_errors_in_one_line() -> None:
    """Prefect logs every exception with its traceback; those that a user is meant to read need none.

    A flow or task that returns a failed state is told of with all that the state carries, as if it had
    raised; the line "Finished in state" says the same in words.
    """
    for name in ("prefect.flow_runs", "prefect.task_runs", "prefect.engine"):
        logging.getLogger(name).addFilter(_in_one_line)


def _in_one_line(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, StressVisionError):
        record.exc_info = None
    dumps_state = isinstance(error, TypeError) and str(error).startswith("Unexpected result for failed state")
    return not (dumps_state or record.getMessage().startswith("Task run failed with state"))
