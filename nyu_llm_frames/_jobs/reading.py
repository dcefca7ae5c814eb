"""Polls batch jobs, and stores the answers of those that have ended.

Comes in: a job's record. Goes out: its record after one step, and answers in the sidecar. Reading
needs no lock; its result is recorded under the lock.
"""

from __future__ import annotations

from nyu_llm_frames._jobs.context import Context
from nyu_llm_frames._jobs.output_reader import OutputReader
from nyu_llm_frames._shared.wording import count
from nyu_llm_frames._sidecar.answer_store import AnswerWriter
from nyu_llm_frames._stages.batches import job as _jobs
from nyu_llm_frames._stages.batches.job import Job
from nyu_llm_frames.errors import AuthenticationError, GatewayError, GatewayUnavailableError


def poll(ctx: Context, job: Job) -> Job:
    """Poll a live job."""
    assert job.batch_id
    try:
        batch = ctx.connection.retrieve(job.batch_id)
    except (AuthenticationError, GatewayUnavailableError):
        raise
    except GatewayError as e:
        raise GatewayError(
            f"{e} The job was submitted through {job.gateway}"
            + (
                f", and this call uses {ctx.gateway.identity}."
                if job.gateway != ctx.gateway.identity
                else ". Its record is kept, and nothing is sent again."
            ),
            status_code=e.status_code,
            body=e.body,
        ) from None
    at = ctx.clock.now()
    fresh = ctx.sidecar.job(job.name)
    if fresh == job and _jobs.polled(job, batch, at) == job:
        return job  # nothing to write
    with ctx.locked():
        fresh = ctx.sidecar.job(job.name)
        if fresh.step != "live" or fresh.batch_id != job.batch_id:
            return fresh
        after = _jobs.polled(fresh, batch, at)
        if after != fresh:
            ctx.save(after)
    return after


def leave_unread(ctx: Context, job: Job, e: GatewayUnavailableError) -> Job:
    """Leave a short output as it was given up before, where no gateway can be reached."""
    with ctx.locked():
        fresh = ctx.sidecar.job(job.name)
        if fresh.step != "ended":
            return fresh
        after = ctx.save(_jobs.not_reread(fresh))
    ctx.notify(
        "note",
        f"batch job {job.batch_id} counts {count(job.unread, 'answer')} more than its output held, "
        f"and it cannot be read again now: {e} What is stored is shown; the same call tries again.",
    )
    return after


class JobReader:
    """Reads outputs, and remembers what it has read between two readings of one."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._readers: dict[str, OutputReader] = {}
        self._told: set[str] = set()

    def read(self, job: Job) -> Job:
        """Read the output once, and store its answers."""
        ctx = self._ctx
        output = self._readers.get(job.name)
        if output is None:
            output = OutputReader(
                ctx.sidecar.request_ids(job.name).to_pylist(),
                lambda: ctx.sidecar.prompts_with_replacement(job.name),
            )
            self._readers[job.name] = output
        if job.name not in self._told:
            self._told.add(job.name)
            ctx.notify("reading", f"batch job {job.batch_id} {job.status}: reading its output")
        writer = ctx.sidecar.answer_writer(job.name)
        try:
            enough = output.read_once(job, ctx.connection, writer)
            # Given up before, after all readings: one more is enough where it shows nothing new.
            as_before = 0 < job.unread <= output.unread
            over = enough or as_before or self._settled(job)
            if over:
                self._look_for_mends(output, job, writer)
                output.read_further_files(job, ctx.connection, writer)
                output.finish(writer)
            with ctx.locked():
                fresh = ctx.sidecar.job(job.name)
                if fresh.step != "ended":
                    # Another process finished it first; this reading is not stored.
                    del self._readers[job.name]
                    return fresh
                writer.commit()
                if not over:
                    return fresh
                if as_before and not output.answers:  # it shows nothing, or was not to be had
                    after = ctx.save(_jobs.not_reread(fresh))
                else:
                    after = ctx.save(
                        _jobs.output_read(
                            fresh,
                            answers=output.answers,
                            orphans=output.orphans,
                            duplicates=output.duplicates,
                            unread=output.unread,
                            complete=output.whole,
                            at=ctx.clock.now(),
                        )
                    )
        except BaseException:
            # This reading may not be stored: the next one starts anew.
            self._readers.pop(job.name, None)
            raise
        finally:
            writer.discard()
        del self._readers[job.name]
        self._told.discard(job.name)
        if not ctx.options.keep_prompts:
            with ctx.locked():
                ctx.sidecar.drop_bodies(after.name)
        ctx.notify("reading", _result_text(after))
        return after

    def _look_for_mends(self, output: OutputReader, job: Job, writer: AnswerWriter) -> None:
        """Read on where a text is damaged: a call of one step reads the output only now."""
        while output.may_repair:
            try:
                output.read_once(job, self._ctx.connection, writer)
            except GatewayError:
                break  # what was read before is kept

    def _settled(self, job: Job) -> bool:
        """Whether a short output has been read for long enough; the first look starts the time."""
        ctx = self._ctx
        if job.settle_epoch == ctx.clock.epoch:
            return ctx.clock.monotonic() - job.settle_from_s >= ctx.options.output_settle_s
        with ctx.locked():
            fresh = ctx.sidecar.job(job.name)
            if fresh.step == "ended" and fresh.settle_epoch != ctx.clock.epoch:
                ctx.save(_jobs.settling_started(fresh, ctx.clock.epoch, ctx.clock.monotonic()))
        return False


def _result_text(job: Job) -> str:
    missing = job.requests - job.answers
    text = f"batch job {job.batch_id} {job.status}: {count(job.answers, 'answer')}"
    if missing:
        text += f", {count(missing, 'request')} without one"
    if job.orphans:
        text += f", {count(job.orphans, 'line')} without a request"
    if job.duplicates:
        text += f", {count(job.duplicates, 'duplicate')}"
    if job.unread:
        text += f"; the job counts {count(job.unread, 'answer')} more, which the output lacks"
    elif not job.complete:
        text += "; the output is not known to be whole"
    return text
