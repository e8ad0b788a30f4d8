"""Work spread over threads, results in order, never more in flight than memory allows."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Pool(ThreadPoolExecutor):
    """That many threads, 0 for one per CPU. Close it (`with`)."""

    def __init__(self, threads: int) -> None:
        self.threads = threads or os.cpu_count() or 1
        super().__init__(self.threads, thread_name_prefix="prepare")

    def in_order(self, work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """`map(work, items)`, lazy and in order, with two items in flight for each thread."""
        flying = deque()
        for item in items:
            flying.append(self.submit(work, item))
            if len(flying) >= 2 * self.threads:
                yield flying.popleft().result()
        while flying:
            yield flying.popleft().result()
