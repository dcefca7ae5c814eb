"""Turns a planned job into a batch job: uploads, submits, and settles uncertain submissions.

Comes in: the name of a job. Goes out: its record after one step. Every submit is preceded by a
saved intent with the newest job of the list (the watermark); an uncertain submission is settled
from the list before anything else is submitted from the sidecar.
"""

from __future__ import annotations

from typing import assert_never

from nyu_llm_frames._jobs.context import Context
from nyu_llm_frames._shared.wording import count, sentence
from nyu_llm_frames._stages.batches import job as _jobs
from nyu_llm_frames._stages.batches.job import Job
from nyu_llm_frames._stages.batches.wire import (
    BUDGET_USED_UP,
    Busy,
    Created,
    JobList,
    Refused,
    Uncertain,
)
from nyu_llm_frames.errors import (
    AuthenticationError,
    BudgetError,
    GatewayError,
    GatewayUnavailableError,
    UncertainSubmissionError,
)

LIST_PATIENCE_S = 600.0


def upload(ctx: Context, name: str) -> Job:
    """Upload a planned job's input file to the bucket, under a name that is used once.

    Only its record is written under the lock, so that no process waits for the network. Where
    two processes upload the same job, only the file that is recorded first is submitted.
    """
    with ctx.sidecar.lock.claimed(name) as alone:
        job = ctx.sidecar.job(name)
        if job.step != "planned" or not alone:
            return job
        connection = ctx.connect()
        ctx.notify(
            "uploading",
            f"uploading {count(job.requests, 'request')} ({job.file_bytes / 1e6:,.1f} MB)",
        )
        with ctx.sidecar.request_file(name, job.file_bytes) as file:
            file_id = connection.upload(file, job.file_name(ctx.clock.unique()), job.model)
        with ctx.locked():
            fresh = ctx.sidecar.job(name)
            if fresh.step != "planned":
                return fresh
            return ctx.save(_jobs.uploaded(fresh, file_id, ctx.clock.now()))


def submit(ctx: Context, planned: Job) -> Job:
    """Make an uploaded file a batch job: intent, one POST, outcome.

    Raises
    ------
    AuthenticationError, BudgetError, GatewayError
        A certain refusal; the job stays uploaded, or is rejected for good.
    GatewayUnavailableError
        A certain refusal for now.
    """
    with ctx.locked():
        job = ctx.sidecar.job(planned.name)
        if job.step != "uploaded":
            return job
        if any(other.step == "creating" for other in ctx.sidecar.jobs().values()):
            return job
        connection = ctx.connect()
        try:
            listed = job_list(ctx)
        except GatewayUnavailableError as e:
            if not _never_lists(ctx, job, e):
                raise
            ctx.notify("note", f"going on without the job list. {e}")
            listed = None
        job = ctx.save(
            _jobs.intended(
                job,
                listed,
                gateway=ctx.gateway.identity,
                epoch=ctx.clock.epoch,
                from_s=ctx.clock.monotonic(),
                at=ctx.clock.now(),
            )
        )
        assert job.input_file_id
        outcome = connection.create(job.input_file_id, job.model)
        match outcome:
            case Created(batch):
                job = ctx.save(_jobs.created(job, batch, ctx.clock.now()))
                ctx.notify("submitting", f"submitted as batch job {batch.id}")
                return job
            case Refused(status_code, reason):
                if status_code in (401, 403, BUDGET_USED_UP):
                    ctx.save(_jobs.not_created(job, reason))
                    no_budget = status_code == BUDGET_USED_UP
                    kind = BudgetError if no_budget else AuthenticationError
                    raise kind(reason, status_code=status_code)
                ctx.save(_jobs.rejected(job, reason, ctx.clock.now()))
                raise GatewayError(
                    f"{reason} Nothing was submitted. Is model={job.model!r} the name of a "
                    "model that the provider has for batch inference?",
                    status_code=status_code,
                )
            case Busy(reason, retry_after_s):
                ctx.save(_jobs.not_created(job, reason))
                error = GatewayUnavailableError(reason)
                error.retry_after_s = retry_after_s
                raise error
            case Uncertain(reason, refusal):
                ctx.notify("settling", f"no certain answer to the submit ({reason})")
                clock = ctx.clock
                return ctx.save(
                    _jobs.became_uncertain(
                        job,
                        reason,
                        epoch=clock.epoch,
                        from_s=clock.monotonic(),
                        refusal=refusal,
                    )
                )
            case _:
                assert_never(outcome)


def job_list(ctx: Context) -> JobList | None:
    """Read the job list once; None where the gateway surely has none to read.

    Without a list the submit goes ahead without a watermark: if it ends uncertain, the user has to
    settle it. While the gateway is in trouble nothing is submitted.
    """
    try:
        return ctx.connection.list()
    except GatewayUnavailableError:
        raise
    except GatewayError as e:
        if e.status_code == 401:
            raise
        return None


def _never_lists(ctx: Context, job: Job, e: GatewayUnavailableError) -> bool:
    """Whether the list has answered nothing but 500 for so long that waiting will not help.

    The list does so while any job of another kind (BigQuery) is among the newest. The waiting
    job's record says since when, over calls and processes.
    """
    clock = ctx.clock
    if e.status_code != 500:
        if job.settle_epoch:
            ctx.save(_jobs.settling_started(job, "", 0.0))
        return False
    if job.settle_epoch != clock.epoch:
        ctx.save(_jobs.settling_started(job, clock.epoch, clock.monotonic()))
        return False
    return clock.monotonic() - job.settle_from_s >= LIST_PATIENCE_S


def settle(ctx: Context, job: Job) -> Job:
    """Look in the job list for a job that may exist.

    All of it under the lock, which a submit holds until its outcome is saved: so no process is
    still submitting a job that is found in this state, and every look counts from there.
    """
    with ctx.locked():
        job = ctx.sidecar.job(job.name)
        if job.step != "creating":
            return job
        if job.gateway != ctx.gateway.identity or job.realm != ctx.realm:
            raise _uncertain(
                ctx,
                job,
                f"It went through {job.gateway} with provider {job.realm}, and only that gateway "
                "knows the job: make the call once with it.",
            )
        if job.settle_epoch != ctx.clock.epoch:
            job = ctx.save(_jobs.settling_started(job, ctx.clock.epoch, ctx.clock.monotonic()))
        elapsed = ctx.clock.monotonic() - job.settle_from_s
        try:
            listed = job_list(ctx)
        except GatewayUnavailableError as e:
            if e.status_code != 500 or elapsed < LIST_PATIENCE_S:
                raise
            listed = None
        settled = elapsed >= ctx.options.submit_settle_s
        after = _jobs.settle(job, listed, settled=settled, at=ctx.clock.now())
        if after != job:
            ctx.save(after)
    if after.step == "live":
        ctx.notify("settling", f"found at the gateway: batch job {after.batch_id}")
    elif after.step == "planned":
        ctx.notify("settling", "the uncertain submission made no job; submitting again")
    elif after.step == "withdrawn":
        ctx.notify("settling", "the uncertain submission made no job, and none is needed any more")
    elif after.step == "rejected":
        raise GatewayError(
            f"{sentence(after.error or 'The submission was refused')} The job list shows that it "
            "made no batch job, so it is not sent again automatically. Is the gateway's address "
            "right (base_url=, PORTKEY_BASE_URL)? The same call submits these rows again."
        )
    if _jobs.undecidable(after):
        lacks = "could not be read" if listed is None else "does not reach back far enough"
        raise _uncertain(ctx, after, f"The job list {lacks} to show that it was not made.")
    return after


def unsettled(job: Job) -> str:
    """Report a submission that is still uncertain."""
    return (
        f"{_doubt(job)} The job list will show it: until then nothing more is submitted from this "
        "sidecar. Make the same call again in a minute, or wait for the run."
    )


def _doubt(job: Job) -> str:
    return (
        f"A submission of {count(job.requests, 'request')} ended without a certain answer "
        f"({job.error or 'the process died during it'}): the batch job may or may not exist."
    )


def _uncertain(ctx: Context, job: Job, why: str) -> UncertainSubmissionError:
    return UncertainSubmissionError(
        f"{_doubt(job)} {why} Nothing more is submitted from {ctx.sidecar.path} until this is "
        f"settled. Look for a job with the input file {job.input_file_id}; then call "
        'error.run.resolve(adopt="<batch id>") if it is there, or '
        "error.run.resolve(resubmit=True) if you are sure there is none.",
        job=job.name,
        input_file_id=job.input_file_id or "",
    )
