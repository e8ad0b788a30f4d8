"""A device further away: a relay on loopback that carries each way's bytes later, and counts them."""

import asyncio
import contextlib
import threading
from types import TracebackType
from typing import Self


class Relay:
    """Listens on `port` and passes on to `to_port` of this machine, `delay_s` later each way.

    A connection is set up at once: what it takes over a real road, one way and back, is missing.
    """

    def __init__(self, to_port: int, delay_s: float):
        self._to_port, self._delay_s = to_port, delay_s
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.carried = 0
        """Bytes so far, both ways."""
        self.port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        starting = asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._server = asyncio.run_coroutine_threadsafe(starting, self._loop).result(10)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection("127.0.0.1", self._to_port)
        # cancelled at the end, which the server's own callback would print
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(self._carry(reader, there[1]), self._carry(there[0], writer))

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while content := await reader.read(1 << 16):
                self.carried += len(content)
                self._loop.call_later(self._delay_s, writer.write, content)
        self._loop.call_later(self._delay_s, writer.close)
