"""Takes the same step of several batch jobs at once, so that they wait for the network together.

Comes in: jobs and a step. Goes out: the outcome of each, in their order, to the calling thread.
That thread also shows the messages of the others: a notebook shows them in its cell.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import TypeAlias, TypeVar

from nyu_llm_frames._jobs.context import Context
from nyu_llm_frames._shared.progress import Progress
from nyu_llm_frames._stages.batches.job import Job
from nyu_llm_frames.errors import LLMFramesError

AT_ONCE = 4

T = TypeVar("T")
Outcome: TypeAlias = tuple[Job, Job | LLMFramesError]


def side_by_side(
    ctx: Context,
    jobs: Sequence[Job],
    act: Callable[[Job], Job],
    goes_on: Callable[[Job, LLMFramesError], bool],
) -> list[Outcome]:
    """Take a step with each job, some at once; return each one's new record, or our error.

    An interrupt leaves the threads behind. They start nothing new, and finish as another process
    would: they read the record again under the lock, and change it only where it is unchanged.

    Parameters
    ----------
    act : callable
        The step; called in other threads, on a context that looks like this thread's.
    goes_on : callable
        Whether to begin the remaining jobs after an error of one.

    Raises
    ------
    BaseException
        Any error that is not ours.
    """
    if not jobs:
        return []
    if len(jobs) == 1:
        return [(jobs[0], attempt(act, jobs[0]))]
    messages: SimpleQueue[Progress | BaseException | None] = SimpleQueue()
    found: dict[str, Job | LLMFramesError] = {}
    left = list(reversed(jobs))
    lend = ctx.lend(messages.put)
    stop = threading.Event()

    def work() -> None:
        try:
            with lend():
                while not stop.is_set():
                    try:
                        job = left.pop()
                    except IndexError:
                        break
                    found[job.name] = after = attempt(act, job)
                    if isinstance(after, LLMFramesError) and not goes_on(job, after):
                        stop.set()
        except BaseException as e:
            stop.set()
            messages.put(e)
        finally:
            messages.put(None)

    threads = [
        threading.Thread(target=work, name=f"job-{number}", daemon=True)
        for number in range(min(AT_ONCE, len(jobs)))
    ]
    try:
        for thread in threads:
            thread.start()
        wrong = _relay(ctx, messages, len(threads))
    finally:
        stop.set()
    if wrong is not None:
        raise wrong
    return [(job, found[job.name]) for job in jobs if job.name in found]


def attempt(act: Callable[[Job], Job], job: Job) -> Job | LLMFramesError:
    """Take a step with a job; return its new record, or our error."""
    try:
        return act(job)
    except LLMFramesError as e:
        return e


def _relay(
    ctx: Context, messages: SimpleQueue[Progress | BaseException | None], threads: int
) -> BaseException | None:
    """Show the threads' messages until all have ended; return the first error that is not ours."""
    wrong: BaseException | None = None
    while threads:
        match messages.get():
            case None:
                threads -= 1
            case Progress() as progress:
                ctx.report(progress)
            case error:
                wrong = wrong or error
    return wrong
