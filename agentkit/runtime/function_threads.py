"""Threads for users' functions: the event loop is woken once for many results."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")

LINGER = 0.001
"""Seconds for which a thread gathers results while more calls are waiting."""

SWEEP = 0.01
"""Seconds after which the loop fetches results that a slow call holds back in its thread."""


class _Call(NamedTuple):
    function: Callable[[], Any]
    future: asyncio.Future[Any]


class _Settled(NamedTuple):
    future: asyncio.Future[Any]
    result: Any
    error: BaseException | None


class FunctionThreads:
    """A few daemon threads; a function that never returns does not hold the process back."""

    def __init__(self, count: int = 4) -> None:
        self._loop = asyncio.get_running_loop()
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._settled: deque[_Settled] = deque()
        self._count = count
        self._threads: list[threading.Thread] = []
        self._open = 0
        self._sweeping = False

    def call(self, function: Callable[[], T]) -> asyncio.Future[T]:
        """Run `function` in a thread; the future has its result or its exception."""
        future: asyncio.Future[T] = self._loop.create_future()
        self._open += 1
        if len(self._threads) < min(self._count, self._open):
            thread = threading.Thread(target=self._work, name="agentkit-local", daemon=True)
            self._threads.append(thread)
            thread.start()
        self._calls.put(_Call(function, future))
        if not self._sweeping:
            self._sweeping = True
            self._loop.call_later(SWEEP, self._sweep)
        return future

    def call_alone(self, function: Callable[[], T]) -> asyncio.Future[T]:
        """Run `function` in a thread of its own at once: nobody waits for it without end."""
        future: asyncio.Future[T] = self._loop.create_future()
        self._open += 1

        def work() -> None:
            self._settled.append(_run(_Call(function, future)))
            self._wake()

        threading.Thread(target=work, name="agentkit-local", daemon=True).start()
        return future

    def close(self) -> None:
        """Let the threads end when they are through with what was queued."""
        for _ in self._threads:
            self._calls.put(None)
        self._threads.clear()

    def _work(self) -> None:
        flushed = time.monotonic()
        while (call := self._calls.get()) is not None:
            self._settled.append(_run(call))
            now = time.monotonic()
            if self._calls.empty() or now - flushed > LINGER:
                flushed = now
                self._wake()

    def _wake(self) -> None:
        with suppress(RuntimeError):  # the loop was closed, and nobody waits
            self._loop.call_soon_threadsafe(self._resolve)

    def _sweep(self) -> None:
        self._resolve()
        self._sweeping = self._open > 0
        if self._sweeping:
            self._loop.call_later(SWEEP, self._sweep)

    def _resolve(self) -> None:
        """Give settled calls back to those who wait for them; runs on the event loop."""
        while self._settled:
            future, result, error = self._settled.popleft()
            self._open -= 1
            if future.done():
                continue
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)


def _run(call: _Call) -> _Settled:
    """Call a function and keep what it returns or raises, so that its thread goes on."""
    if call.future.done():  # it was given up while it waited for a thread
        return _Settled(call.future, None, None)
    try:
        return _Settled(call.future, call.function(), None)
    except StopIteration as error:  # which no future takes
        return _Settled(call.future, None, RuntimeError(f"the function raised {error!r}"))
    except Exception as error:  # noqa: BLE001  # raised again where it is awaited
        return _Settled(call.future, None, error)
    except BaseException as error:  # noqa: BLE001  # it must not end the thread, or the process
        return _Settled(call.future, None, RuntimeError(f"the function raised {error!r}"))
