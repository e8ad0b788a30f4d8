"""A device further away: a relay on loopback that carries each way's bytes later, and counts them."""

import asyncio
import contextlib
import threading
from types import TracebackType
from typing import Self


class Relay:
    """Listens on `port` and passes on to `to_port` of this machine, `delay_s` later each way.

    With `bytes_at_once` it waits so long for each few bytes; with 0 of them it passes on nothing. A
    connection is set up at once: what that takes over a real road, one way and back, is missing.
    """

    def __init__(self, to_port: int, delay_s: float, bytes_at_once: int | None = None):
        self._to_port, self._delay_s, self._bytes_at_once = to_port, delay_s, bytes_at_once
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
        await asyncio.sleep(0)  # for what was aborted to be closed

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection("127.0.0.1", self._to_port)
        # cancelled at the end, which the server's own callback would print
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(self._carry(reader, there[1]), self._carry(there[0], writer))
            return
        writer.transport.abort()
        there[1].transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while content := await reader.read(1 << 16 if self._bytes_at_once is None else 64):
                self.carried += len(content)
                if self._bytes_at_once is None:
                    self._loop.call_later(self._delay_s, writer.write, content)
                else:
                    await self._trickle(content, writer)
        self._loop.call_later(self._delay_s, writer.close)

    async def _trickle(self, content: bytes, writer: asyncio.StreamWriter) -> None:
        step = self._bytes_at_once or 0
        for start in range(0, len(content) if step else 0, step or 1):
            await asyncio.sleep(self._delay_s)
            writer.write(content[start : start + step])
