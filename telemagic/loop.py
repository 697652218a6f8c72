"""A background event loop in a thread of its own, and what the waiting thread does for it.

A notebook's own loop stands still while a cell blocks, so the control connection lives on another one. The cell's
thread waits meanwhile and serves what must happen there: the password prompt and the display.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import queue
import threading
import time
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

from telehelper.errors import LocalProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")

CANCEL_PATIENCE: Final = 9.0  # seconds to wait for a cancelled job; undoing a connect is bounded by 8


class Job(Generic[T]):
    """A coroutine to be run on the background loop.

    It is made before it is started, so that an interrupt, which may come between any two steps, finds it to cancel.
    `future` is done when the coroutine has really ended: after a :meth:`cancel` that is when its clean-up is over.
    """

    def __init__(self) -> None:
        self.future: concurrent.futures.Future[T] = concurrent.futures.Future()
        self.future.set_running_or_notify_cancel()  # from here on only the coroutine's end completes it
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[T] | None = None

    def start(self, loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, T]) -> None:
        """Have the coroutine run there; from any thread."""
        self._loop = loop
        loop.call_soon_threadsafe(self._start, loop, coro)

    def _start(self, loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, T]) -> None:
        self._task = loop.create_task(coro)
        self._task.add_done_callback(self._finish)

    def _finish(self, task: asyncio.Task[T]) -> None:
        if task.cancelled():
            self.future.set_exception(asyncio.CancelledError())
        elif (error := task.exception()) is not None:
            self.future.set_exception(error)
        else:
            self.future.set_result(task.result())

    def cancel(self) -> None:
        """Ask the coroutine to stop; from any thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(lambda: self._task and self._task.cancel())
        elif not self.future.done():
            self.future.set_exception(asyncio.CancelledError())  # it was never started

    def end(self, timeout: float) -> bool:
        """Cancel it, and wait until its clean-up is over; False if that takes longer than `timeout` seconds."""
        self.cancel()
        return bool(concurrent.futures.wait([self.future], timeout).done)


class LoopThread:
    """One daemon thread with one event loop, started when first needed."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def start(self, job: Job[T], coro: Coroutine[Any, Any, T]) -> None:
        """Start a coroutine there, as a job."""
        job.start(self._running_loop(), coro)

    def post(self, action: Callable[[], None]) -> None:
        """Have `action` run there soon; from any thread, returns at once."""
        self._running_loop().call_soon_threadsafe(action)

    def run(self, coro: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        """Run a coroutine there and wait for its result; whatever ends the waiting before cancels it."""
        if threading.current_thread() is self._thread:
            coro.close()
            raise LocalProtocolError("the background loop cannot wait for itself")
        job: Job[T] = Job()
        try:
            self.start(job, coro)
            return job.future.result(timeout)
        except BaseException:  # an interrupt, the timeout, or what a signal handler raises
            job.cancel()
            raise

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None or self._thread is None or not self._thread.is_alive():
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._loop.run_forever, name="telemagic", daemon=True)
            self._thread.start()
        return self._loop

    def close(self) -> None:
        """Stop the loop and the thread; unfinished work is cancelled."""
        loop, thread = self._loop, self._thread
        self._loop = self._thread = None
        if loop is None or thread is None:
            return
        asyncio.run_coroutine_threadsafe(_cancel_all(), loop).result(CANCEL_PATIENCE)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(CANCEL_PATIENCE)
        loop.close()

    def abandon(self) -> None:
        """Forget loop and thread without touching them: in a forked child the thread does not exist.

        They are kept alive: what a collected loop and its tasks do at their end would be seen by the parent, with
        which the child shares the selector, and would complain on standard error.
        """
        _abandoned.append((self._loop, asyncio.all_tasks(self._loop) if self._loop is not None else set()))
        self._loop = self._thread = None


_abandoned: list[object] = []


async def _cancel_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.sleep(0)  # transports they closed end in the loop's next turn


class Foreground(Protocol):
    """The thread that waits: runs for the background loop what must not happen there."""

    def post(self, action: Callable[[], None]) -> None:
        """Have `action` run in the waiting thread; from the background loop, returns at once."""


async def ask(foreground: Foreground, question: Callable[[], T]) -> T:
    """Run `question` in the waiting thread and await its answer, or what it raises; called on the background loop."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()

    def settle(value: T) -> None:
        if not answer.done():
            answer.set_result(value)

    def fail(error: BaseException) -> None:
        if not answer.done():
            answer.set_exception(error)

    def put() -> None:
        try:
            value = question()
        except BaseException as error:  # else nobody would ever answer
            loop.call_soon_threadsafe(fail, error)
            raise
        loop.call_soon_threadsafe(settle, value)

    foreground.post(put)
    return await answer


class BlockingForeground:
    """A thread that does nothing else while it waits: a cell, a script, a shell command.

    Parameters
    ----------
    tick
        Called once, `after` seconds into the wait, if it is not over by then.
    """

    def __init__(self, tick: Callable[[], None] | None = None, after: float = 0.0) -> None:
        self._queue: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._tick = tick
        self._tick_at = time.monotonic() + after

    def post(self, action: Callable[[], None]) -> None:
        """Have `action` run in the waiting thread."""
        self._queue.put(action)

    def run(self, job: Job[T]) -> T:
        """Serve until the job is done. Whatever is raised here, an interrupt above all: ending the job is the caller's."""
        job.future.add_done_callback(lambda _: self._queue.put(None))
        while (action := self._next()) is not None:
            action()
        return job.future.result()

    def _next(self) -> Callable[[], None] | None:
        if self._tick is None:
            return self._queue.get()
        try:
            return self._queue.get(timeout=max(0.0, self._tick_at - time.monotonic()))
        except queue.Empty:
            tick, self._tick = self._tick, None
            return tick


class AsyncForeground:
    """A running event loop whose coroutine awaits: `await telemagic.aconnect()`."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    def post(self, action: Callable[[], None]) -> None:
        """Have `action` run as a callback of the waiting loop."""
        self._loop.call_soon_threadsafe(action)

    async def run(self, job: Job[T]) -> T:
        """Await the job; being cancelled cancels the job and waits for its clean-up."""
        try:
            return await asyncio.wrap_future(job.future)
        except asyncio.CancelledError:
            job.cancel()
            await asyncio.wait([asyncio.wrap_future(job.future)], timeout=CANCEL_PATIENCE)
            raise
