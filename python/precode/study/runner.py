"""Runs a study: in process or anywhere else, and whatever happens, what is finished is kept."""

from __future__ import annotations

import asyncio
import os
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Executor, Future, wait
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias

from tqdm.auto import tqdm

from precode._internal.cells import Cell, Job, Kind
from precode._internal.check import integer
from precode._internal.errors import PrecodeTypeError, UnsupportedError
from precode._internal.progress import Progress
from precode.study.computing import Computed, Failed, compute
from precode.study.config import StudyConfig
from precode.study.planning import KINDS, plan
from precode.study.results import Study
from precode.study.store import Store

KILLERS = 4
"""Cells that may kill their workers one after the other before the fault is looked for elsewhere."""

PATIENCE = 0.2
"""Seconds after which Ctrl-C is looked for."""

GONE = (BrokenExecutor, CancelledError, asyncio.CancelledError)
"""What a future raises when not its cell but its executor failed."""

Workers: TypeAlias = "Executor | Callable[[], Executor] | None"
"""What computes: this process, an executor, or a function that makes one and is called again when one breaks."""


def run(
    config: StudyConfig,
    out: str | Path,
    *,
    kinds: Iterable[Kind] | None = None,
    executor: Workers = None,
    in_flight: int | None = None,
    retries: int = 2,
    repair: bool = False,
    progress: Progress = True,
) -> Study:
    """Computes what is unfinished of a study; killed at any moment and run again, it ends with the same bytes.

    This process alone writes; others return their results to it. A job that fails, whatever it raises, is tried again
    at once, and at last noted with its error while the others go on; the next run tries it anew. When an executor
    breaks because a process of it died, its jobs are computed one at a time by a new one, so that the one that kills is
    told from the others.

    The study of a folder may grow: more methods, densities, widths, numbers of clauses, embeddings, formulas or
    kinds of cells. Only what is new is computed, and the tables are those of a study that was run at once.

    Args:
        config: of the study.
        out: a new or empty folder, or one with a study all of whose finished parts are in this one.
        kinds: what it consists of; `KINDS` by default.
        executor: None for this process, with all its cores; any `concurrent.futures.Executor`, such as a
            `ProcessPoolExecutor` that spawns, or `dask.distributed.Client.get_executor()`; or a function without
            arguments that makes one. An executor is left running; one that was made is shut down.
        in_flight: jobs that are with the executor at a time; by default twice its workers, where it names them, or
            twice the cores of this machine.
        retries: times that a failed job is tried again.
        repair: compute again what is missing or was altered in a damaged folder, instead of refusing it.
        progress: True for a bar, or a function of (cells done, cells).

    Returns:
        The results, of which `failures` names what could not be computed.

    Raises:
        PrecodeFileError: the folder is another study's, or has finished parts that this one leaves out; it is damaged,
            written by another process, or cannot be written.
        KeyboardInterrupt: Ctrl-C; what is finished is kept, and the message says how much that is.
        UnsupportedError: the executor cannot compute any more; what is finished is kept.
        PrecodeValueError: a setting out of range.
        PrecodeTypeError: an argument of the wrong type.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> import pandas as pd
        >>> def squares(cell):
        ...     if cell["x"] == 3:
        ...         raise ValueError("an unlucky number")
        ...     return {"squares": pd.DataFrame({"y": [cell["x"] ** 2]})}
        >>> kind = Kind("squares", lambda config: [{"x": 2}, {"x": 3}], squares, lambda cell: 0.1)
        >>> with TemporaryDirectory() as folder, warnings.catch_warnings():
        ...     warnings.simplefilter("ignore")  # of the cell that fails
        ...     study = run(StudyConfig.preset("quick"), folder, kinds=[kind], retries=0, progress=False)
        ...     study.table("squares")["y"].tolist(), study.failures["error"].tolist()
        ([4], ['ValueError: an unlucky number'])
    """
    retries = integer(retries, "retries", 0)
    known = {kind.name: kind for kind in (KINDS.values() if kinds is None else kinds)}
    planned = plan(config, known.values())
    workers = _Workers(executor, None if in_flight is None else integer(in_flight, "in_flight", 1))
    with Store(out, config, planned.cells, repair=repair) as store:
        pending = planned.jobs(store.finished())
        with _reporter(progress, planned.cells, pending) as report:
            driver = _Driver(store, known, workers, retries, report)
            try:
                driver.run(pending)
            except KeyboardInterrupt:
                if not workers.end():
                    driver.cancel()
                done = _count(store)
                raise KeyboardInterrupt(f"interrupted: {done}: run it again to go on") from None
            finally:
                workers.close()
    study = Study(out)
    if study.finished < study.planned:
        first = study.failures.iloc[0]
        warnings.warn(
            f"{study.planned - study.finished} of {study.planned} cells failed, such as {first['kind']} "
            f"{first['settings']}: {first['error']}; see the failures of the study",
            stacklevel=2,
        )
    return study


def _count(store: Store) -> str:
    """How much is finished, in words."""
    jobs = store.finished()
    done = sum(sum(job.size for job in jobs.get(key, ())) == cell.size for key, cell in store.cells.items())
    return f"{done} of {len(store.cells)} cells are finished and kept"


class _InProcess(Executor):
    """Computes at once, in this thread; Ctrl-C is passed on."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs, passed=(KeyboardInterrupt,)))
        return future


class _Workers:
    """The executor that is used now, and how to come by another."""

    def __init__(self, executor: Workers, in_flight: int | None) -> None:
        self._make = executor if callable(executor) and not isinstance(executor, Executor) else None
        if executor is not None and self._make is None and not isinstance(executor, Executor):
            raise PrecodeTypeError(
                f"executor must be a concurrent.futures.Executor, a function that makes one, or None, not "
                f"{type(executor).__name__} (of a dask Client, pass client.get_executor())"
            )
        self._given = executor if isinstance(executor, Executor) else None
        self._in_process = executor is None
        self._wanted = in_flight
        self._current: Executor | None = None

    @property
    def in_flight(self) -> int:
        """Cells that may be with the executor at a time."""
        if self._in_process:
            return 1
        count = getattr(self.current(), "_max_workers", None)
        return self._wanted or 2 * (count if isinstance(count, int) else os.cpu_count() or 1)

    def current(self) -> Executor:
        """The executor, made if need be."""
        if self._current is None:
            self._current = self._made() if self._make else self._given or _InProcess()
        return self._current

    def _made(self) -> Executor:
        assert self._make is not None
        made = self._make()
        if not isinstance(made, Executor):
            raise PrecodeTypeError(f"the executor that was made is a {type(made).__name__}: return an Executor")
        return made

    def replace(self, error: BaseException, finished: str) -> None:
        """Lets go of a broken executor, so that the next is a new one.

        Raises:
            UnsupportedError: there is no way to make one.
        """
        if self._make is None:
            raise UnsupportedError(
                f"the executor cannot compute any more ({type(error).__name__}: {error}); {finished}: run it again "
                "with a new executor to go on, or pass a function that makes executors, so that it can be replaced"
            ) from error
        self.close()

    def close(self) -> None:
        """Shuts down an executor that was made here."""
        if self._make is not None and self._current is not None:
            self._current.shutdown(wait=False, cancel_futures=True)
        self._current = None

    def end(self) -> bool:
        """Ends the processes of an executor that was made here, whatever they compute; whether it had any."""
        # Python 3.14 has a method for this. Futures are left alone: a pool whose processes die answers for them itself.
        processes = list((getattr(self._current, "_processes", None) or {}).values()) if self._make else []
        for process in processes:
            with suppress(OSError, ValueError):
                process.terminate()
        if processes and self._current is not None:
            self._current.shutdown(wait=False)
            self._current = None
        return bool(processes)


class _Driver:
    """Hands jobs out and takes results in."""

    def __init__(
        self, store: Store, kinds: dict[str, Kind], workers: _Workers, retries: int, report: Callable[[Job], None]
    ) -> None:
        self.store = store
        self.kinds = kinds
        self.workers = workers
        self.retries = retries
        self.report = report
        self.attempts: Counter[tuple[str, str]] = Counter()
        self.flying: dict[Future[Computed | Failed], Job] = {}
        self.waiting: deque[Job] = deque()
        # Jobs that were with an executor when it broke: each is computed alone until it is known not to be the cause.
        self.suspects: deque[Job] = deque()
        self.breaks = 0

    def run(self, pending: Iterable[Job]) -> None:
        """Computes jobs until none is left.

        Raises:
            UnsupportedError: the executor is broken for good.
            KeyboardInterrupt: Ctrl-C; results that had come back are kept.
        """
        self.waiting.extend(pending)
        try:
            while self.waiting or self.suspects or self.flying:
                broken = self._hand_out()
                # A broken executor answers for all that it had. Not for long at a time: a signal handler that some
                # package has installed can keep Ctrl-C from ending a wait.
                done, _ = wait(self.flying, timeout=PATIENCE, return_when=FIRST_COMPLETED)
                for future in done:
                    broken = self._take(future) or broken
                if broken:
                    self._recover(broken)
        except KeyboardInterrupt:
            self._keep_what_came_back()
            raise
        except BaseException:
            self.cancel()
            raise

    def cancel(self) -> None:
        """Takes back what no worker has begun."""
        for future in self.flying:
            future.cancel()

    def _hand_out(self) -> BaseException | None:
        """Submits as many jobs as may fly; returns why the executor took no more, if it broke."""
        while True:
            alone = self.suspects and not self.flying
            crowd = self.waiting and not self.suspects and len(self.flying) < self.workers.in_flight
            if not alone and not crowd:
                return None
            job = (self.suspects if alone else self.waiting)[0]
            function, attempt = self.kinds[job.cell.kind].compute, self.attempts[job.key]
            try:
                future = self.workers.current().submit(compute, function, job, attempt)
            except (Exception, *GONE) as error:  # a job's own errors come with its future
                return error
            (self.suspects if alone else self.waiting).popleft()
            self.flying[future] = job

    def _take(self, future: Future[Computed | Failed]) -> BaseException | None:
        """Keeps a result or a failure; returns the error if it is the executor that failed."""
        try:
            error = future.exception()
        except GONE as gone:  # cancelled
            return gone
        if isinstance(error, GONE):
            return error  # still in `flying`
        job = self.flying.pop(future)
        # What the job itself raises comes as a result; an error is of the way there or back, such as of pickling.
        outcome = future.result() if error is None else Failed.of(error)
        if isinstance(outcome, Computed):
            self.store.put(job, outcome)
            self.breaks = 0
            self.report(job)
        elif isinstance(outcome, Failed):
            self._failed(job, outcome, self.waiting)
        else:
            self._failed(job, Failed.of(TypeError(f"the executor returned {outcome!r:.80}")), self.waiting)
        return None

    def _failed(self, job: Job, failed: Failed, again: deque[Job]) -> None:
        """Notes a failed attempt: the job waits for the next in a queue, or is given up."""
        self.attempts[job.key] += 1
        if self.attempts[job.key] <= self.retries:
            again.append(job)
            return
        self.store.fail(job, self.attempts[job.key], failed.error, failed.trace)
        self.report(job)

    def _recover(self, error: BaseException) -> None:
        """Replaces a broken executor and puts back what it had.

        Raises:
            UnsupportedError: it cannot be replaced, or breaks whatever it computes.
        """
        self._keep_what_came_back()
        had = list(self.flying.values())
        self.flying.clear()
        self.breaks += 1
        finished = _count(self.store)
        if self.breaks > KILLERS * (self.retries + 1):
            raise UnsupportedError(
                f"the executor broke {self.breaks} times without finishing a cell ({type(error).__name__}: {error}); "
                f"{finished}: see to the workers, and run it again to go on"
            ) from error
        self.workers.replace(error, finished)
        if len(had) == 1:
            self._failed(had[0], Failed.of(error), self.suspects)
        else:
            self.suspects.extend(had)

    def _keep_what_came_back(self) -> None:
        """Keeps the results that are there already."""
        for future in [future for future in self.flying if future.done() and not future.cancelled()]:
            if future.exception() is None and isinstance(future.result(), Computed):
                self._take(future)


@contextmanager
def _reporter(progress: Progress, planned: Iterable[Cell], pending: Iterable[Job]) -> Iterator[Callable[[Job], None]]:
    """What is called with every job that is done; the bar and its remaining time go by the estimates of the cells."""
    total, jobs = list(planned), list(pending)
    left = Counter(job.cell.key for job in jobs)

    def count(job: Job) -> int:
        """Takes a job from those left; the number of cells of which none is left."""
        left[job.cell.key] -= 1
        return len(total) - sum(number > 0 for number in left.values())

    if callable(progress):
        tell = progress
        yield lambda job: tell(count(job), len(total))
    elif not progress:
        yield lambda job: None
    else:
        everything, remaining = sum(cell.seconds for cell in total), sum(job.seconds for job in jobs)
        with tqdm(
            total=everything,
            initial=everything - remaining,
            desc="study",
            bar_format="{desc}: {percentage:3.0f}% |{bar}| {elapsed}<{remaining}{postfix}",
            smoothing=0,
            # None: no bar where the output is neither a terminal nor a notebook.
            disable=None,
            leave=False,
        ) as bar:

            def advance(job: Job) -> None:
                bar.set_postfix_str(f"{count(job)} of {len(total)} cells", refresh=False)
                bar.update(job.seconds)

            yield advance
