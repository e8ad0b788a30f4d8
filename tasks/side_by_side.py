"""The same work for several devices at once."""

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

from deployments.fleet import Device

Result = TypeVar("Result")
_log = logging.getLogger("prefect.flow_runs")


def side_by_side(work: Callable[[Device], Result], devices: Sequence[Device], at_once: int) -> list[Result]:
    """`map(work, devices)` in threads that have the caller's context.

    What one of them raises, or Ctrl-C, comes out when the devices under way are done; no other is begun.
    """
    with ThreadPoolExecutor(at_once, thread_name_prefix="devices") as pool:
        try:
            return [done.result() for done in [pool.submit(copy_context().run, work, one) for one in devices]]
        except BaseException as error:
            pool.shutdown(wait=False, cancel_futures=True)
            say_if_told_to_end(error)
            raise


def say_if_told_to_end(error: BaseException) -> None:
    """Says what is waited for, where the error is that somebody wants the run to end."""
    if not isinstance(error, Exception):
        _log.warning("told to end: the devices under way come to their end first, and no other is begun")
