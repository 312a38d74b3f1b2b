"""Threads of which one runs at a time, by the session's clock: they run a consumer's loop and its writer.

A consumer blocks where it waits, so each of its threads is a real one here, too. But only one of them runs at a time:
where it would wait, it yields to the next due thread, and the clock advances to that time. So the order of events
follows from the plan alone, and no real time passes.
"""

import heapq
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from typing import Any, Final

from marketfeed_simtest.clock import TURN_SECONDS, Clock


class Killed(BaseException):
    """The process of this thread has been killed."""


class Task:
    """A thread of a session.

    Attributes:
        error: error that it ended with.
        frozen_until: time before which it does not run.
    """

    def __init__(self, name: str, function: Callable[[], None]) -> None:
        self.name = name
        self.is_done = False
        self.is_killed = False
        self.error: BaseException | None = None
        self.frozen_until = 0.0
        self.function = function
        self.turn = threading.Semaphore(0)
        self.token = 0


_Due = tuple[float, int, "Task | Callable[[], None]", int]


class Tasks:
    """Runs tasks and calls in the order in which they are due."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.errors: list[BaseException] = []
        self._driver = Task("driver", lambda: None)
        self._current = self._driver
        self._due: list[_Due] = []
        self._number = 0
        self._threads: list[tuple[Task, threading.Thread]] = []

    def call_at(self, seconds: float, call: Callable[[], None]) -> None:
        """Schedule a call at a time; it must not wait."""
        self._push(max(seconds, self.clock.seconds), call, 0)

    def call_in(self, seconds: float, call: Callable[[], None]) -> None:
        """Schedule a call after a delay."""
        self.call_at(self.clock.seconds + seconds, call)

    def spawn(self, name: str, function: Callable[[], None]) -> Task:
        """Start a task; an exception of `function` becomes its `error`."""
        task = Task(name, function)
        thread = threading.Thread(target=self._run, args=(task,), name=name, daemon=True)
        self._threads.append((task, thread))
        self._push(self.clock.seconds, task, task.token)
        thread.start()
        return task

    def sleep(self, seconds: float) -> None:
        """Sleep while others run."""
        self.block(max(0.0, seconds))

    def block(self, seconds: float | None) -> None:
        """Wait until `wake` is called, or for a time.

        Raises:
            Killed: the task was killed, before or meanwhile.
        """
        me = self._current
        if me.is_killed:
            raise Killed
        if seconds is not None:
            # A turn takes time: a wait below a float's resolution would never end.
            self._push(self.clock.seconds + max(seconds, TURN_SECONDS), me, me.token)
        self._switch(me)
        if me.is_killed:
            raise Killed

    def waker(self) -> Callable[[], None]:
        """Return a function that ends the current task's next wait, and no later one."""
        me, token = self._current, self._current.token
        return lambda: self._push(self.clock.seconds, me, token) if me.token == token else None

    def kill(self, task: Task) -> None:
        """Kill a task where it waits."""
        task.is_killed = True
        task.frozen_until = 0.0
        if not task.is_done:
            self._push(self.clock.seconds, task, task.token)

    def run_until(self, seconds: float) -> None:
        """Run everything that is due before a time.

        Raises:
            BaseException: exception of a call.
        """
        self._push(seconds, self._driver, self._driver.token)
        self._switch(self._driver)
        if self.errors:
            raise self.errors[0]

    def end(self) -> None:
        """Kill running tasks, and join the threads."""
        for task, _ in self._threads:
            if not task.is_done:
                self.kill(task)
        self.run_until(self.clock.seconds + 1e-6)
        for task, thread in self._threads:
            if task.is_done:
                thread.join()

    def _push(self, seconds: float, what: Task | Callable[[], None], token: int) -> None:
        self._number += 1
        heapq.heappush(self._due, (seconds, self._number, what, token))

    def _next(self) -> Task:
        while True:
            seconds, _, what, token = heapq.heappop(self._due)
            if isinstance(what, Task):
                if what.is_done or what.token != token:
                    continue
                if what.frozen_until > seconds:
                    self._push(what.frozen_until, what, token)
                    continue
                self.clock.seconds = max(self.clock.seconds, seconds)
                what.token += 1
                return what
            self.clock.seconds = max(self.clock.seconds, seconds)
            try:
                what()
            except Exception as error:  # noqa: BLE001 - the driver raises it
                self.errors.append(error)

    def _switch(self, me: Task) -> None:
        following = self._next()
        if following is not me:
            self._current = following
            following.turn.release()
            me.turn.acquire()

    def _run(self, task: Task) -> None:
        task.turn.acquire()
        try:
            if not task.is_killed:
                task.function()
        except BaseException as error:  # noqa: BLE001 - the starter of the task checks it
            task.error = error
        task.is_done = True
        self._current = self._next()
        self._current.turn.release()

    # --- the consumer's World ---

    def wait(
        self, fs: "Collection[Future[Any]]", /, timeout: float | None = None
    ) -> "tuple[set[Future[Any]], set[Future[Any]]]":
        """As `concurrent.futures.wait`."""
        deadline = None if timeout is None else self.clock.seconds + timeout
        while True:
            left = [future for future in fs if not future.done()]
            over = deadline is not None and self.clock.seconds >= deadline
            if not left or over:
                return {f for f in fs if f.done()}, set(left)
            wake = self.waker()
            for future in left:
                future.add_done_callback(lambda _, wake=wake: wake())  # type: ignore[misc]
            self.block(None if deadline is None else deadline - self.clock.seconds)

    def event(self) -> threading.Event:
        """As `threading.Event`."""
        return _Event(self)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Patch the module `time` with the session's clock; `time.sleep` runs other tasks."""
        with self.clock.installed():
            time.sleep = self.sleep  # type: ignore[assignment]
            yield


class _Event(threading.Event):
    def __init__(self, tasks: Tasks) -> None:
        super().__init__()
        self._tasks = tasks
        self._wakers: list[Callable[[], None]] = []

    def set(self) -> None:
        super().set()
        wakers, self._wakers = self._wakers, []
        for wake in wakers:
            wake()

    def wait(self, timeout: float | None = None) -> bool:
        if not self.is_set():
            self._wakers.append(self._tasks.waker())
            self._tasks.block(timeout)
        return self.is_set()


class Answer(Future[Any]):
    """A future whose `result` and `exception` run other tasks until it is done."""

    def __init__(self, tasks: Tasks) -> None:
        super().__init__()
        self._tasks = tasks

    def result(self, timeout: float | None = None) -> Any:
        """See `Future.result`."""
        self._tasks.wait([self], timeout)
        return super().result(0)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """See `Future.exception`."""
        self._tasks.wait([self], timeout)
        return super().exception(0)


class Thread(Executor):
    """An executor that runs calls one at a time, after a pause, in a task of its own."""

    _STOP: Final = None

    def __init__(
        self, tasks: Tasks, spawn: Callable[[str, Callable[[], None]], Task], pause: Callable[[], None]
    ) -> None:
        self._tasks = tasks
        self._pause = pause
        self._work: deque[tuple[Future[Any], Callable[[], Any]] | None] = deque()
        self._wake: Callable[[], None] = lambda: None
        self._task = spawn("writer", self._serve)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        """See `Executor.submit`."""
        future: Future[Any] = Answer(self._tasks)
        self._work.append((future, lambda: fn(*args, **kwargs)))
        self._wake()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002 - the base's
        """See `Executor.shutdown`."""
        self._work.append(self._STOP)
        self._wake()
        while wait and not self._task.is_done:
            self._tasks.sleep(0.001)

    def _serve(self) -> None:
        while True:
            while not self._work:
                self._wake = self._tasks.waker()
                self._tasks.block(None)
            piece = self._work.popleft()
            if piece is self._STOP:
                return
            future, call = piece
            self._pause()
            try:
                result = call()
            except Killed:
                raise
            except BaseException as error:  # noqa: BLE001 - a future carries whatever was raised
                future.set_exception(error)
            else:
                future.set_result(result)
