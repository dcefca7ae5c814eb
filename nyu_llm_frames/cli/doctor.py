"""`doctor`: check each step of a batch, and say how to fix the one that fails.

Comes in: the settings of a gateway. Goes out: one line per step. Nothing is paid without --send.
"""

from __future__ import annotations

import io
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from nyu_llm_frames._gateway.provider import resolve_model
from nyu_llm_frames._shared.options import NYU_CONTACT, VARIABLES, current
from nyu_llm_frames._shared.wording import count
from nyu_llm_frames.cli import command_options as options
from nyu_llm_frames.cli import exits, show
from nyu_llm_frames.errors import (
    AuthenticationError,
    BatchJobFailedError,
    ConfigurationError,
    GatewayError,
    GatewayUnavailableError,
    LLMFramesError,
    RunTimeoutError,
    UncertainSubmissionError,
)

if TYPE_CHECKING:
    import pandas as pd

    from nyu_llm_frames._gateway.connection import Connection
    from nyu_llm_frames._gateway.gateway import Gateway

    Step = Callable[[Gateway, Connection, str], Iterator["Finding"]]

State = Literal["ok", "failed", "skipped", "pending", "warning"]

_FRAME = {"city": ["Abu Dhabi", "Shanghai"]}
_PROMPT = "In one word: in which country is {{ city }}?"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one step found, and what to do; "" when nothing is to be done.

    `code` is the command's exit code if this were the only step.
    """

    step: str
    state: State
    found: str
    fix: str = ""
    code: int = exits.OK


def _failed(step: str, error: LLMFramesError, fix: str, *, code: int | None = None) -> Finding:
    """Make a finding of an error; its exit code is the error's, unless the cause is not clear."""
    code = exits.of_error(error) if code is None else code
    return Finding(step, "failed", str(error), fix, code)


@click.command()
@click.option("--model", default="gemini-3-flash-preview", show_default=True)
@click.option("--send", is_flag=True, help="Also submit a batch of two rows; costs a few tokens.")
@click.option("--sidecar", type=options.FOLDER, default=Path("doctor.llm"), show_default=True)
@click.option(
    "--timeout", type=float, default=600.0, show_default=True, help="Seconds, with --send."
)
@options.gateway
@options.as_json
def doctor(
    model: str, send: bool, sidecar: Path, timeout: float, json_: bool, **given: Any
) -> None:
    """Check settings, gateway, key, job list and bucket step by step; say what to fix.

    Uploads a file of two lines to the bucket. With --send also makes a real batch job of two
    rows, which shows that the model answers. The exit code is that of the first step that failed;
    the job list counts only when nothing else failed.
    """
    gateway, model = resolve_model(options.take_gateway(given), model)
    found = []
    for finding in examine(gateway, model):
        found.append(finding)
        if not json_:
            _print(finding)
    sound = all(f.state != "failed" for f in found if f.step != "job list")  # works without it
    last = _send(gateway, model, sidecar, timeout, wanted=send, sound=sound)
    found.append(last)
    if json_:
        show.as_json([asdict(f) for f in found])
    else:
        _print(last)
    found.sort(key=lambda f: f.step == "job list")  # everything else works without it
    raise click.exceptions.Exit(next((f.code for f in found if f.code != exits.OK), exits.OK))


def examine(gateway: Gateway, model: str) -> Iterator[Finding]:
    """Check everything that costs nothing; stop at a failed step that all later ones need."""
    yield Finding("versions", "ok", _versions())
    yield from _scratch(Path(current().sidecar or "").absolute())
    try:
        route = gateway.route
    except ConfigurationError as e:
        yield _failed("network", e, "")
        return
    if route is not None:
        yield Finding("network", "ok", str(route))
    try:
        connection = gateway.connect()
        connection.load_client()
    except ConfigurationError as e:
        yield _failed("settings", e, _settings_fix(gateway))
        return
    except GatewayUnavailableError as e:
        yield _failed("settings", e, "Read the log that the message names.")
        return
    yield Finding("settings", "ok", f"{gateway!r}; {gateway.identity}, provider {gateway.realm}")
    ends = ("network", "gateway", "key")
    with closing(connection):
        for step in (_reach, _upload):
            try:
                findings = list(step(gateway, connection, model))
            except LLMFramesError as e:
                findings = [_failed(step.__name__.strip("_"), e, _fix(gateway, e))]
            yield from findings
            if any(f.step in ends and f.state == "failed" for f in findings):
                return


def _reach(gateway: Gateway, connection: Connection, model: str) -> Iterator[Finding]:
    """Read the job list: one call that shows whether the gateway is up and accepts the key."""
    try:
        jobs = connection.list()
    except GatewayUnavailableError as e:
        uploads = e.status_code == 500 and list(_upload(gateway, connection, model))
        if not uploads or any(found.state == "failed" for found in uploads):
            yield _failed("gateway", e, _fix(gateway, e))
            return
        yield Finding("gateway", "ok", f"{gateway.identity} answers")
        yield Finding("key", "ok", "accepted")
        fix = (
            "The list fails while a BigQuery batch job of anybody's is among the newest of the "
            "project. Everything else works: a call waits ten minutes for the list and goes on "
            "without it, and an uncertain submission cannot settle itself."
        )
        yield _failed("job list", e, fix)
        return
    except ConfigurationError as e:  # of a certificate, or a proxy's password
        yield _failed("network", e, "")
        return
    except GatewayError as e:
        yield Finding("gateway", "ok", f"{gateway.identity} answers")
        if e.status_code == 401:
            yield _failed("key", e, "Set PORTKEY_API_KEY to a key that is valid.")
            return
        yield Finding("key", "ok", "not refused")
        if isinstance(e, AuthenticationError):
            fix = (
                "Without the list an uncertain submission cannot settle itself; everything "
                f"else works. Ask {NYU_CONTACT} for the right to list batch jobs."
            )
        else:
            fix = (
                "If the bucket fails as well: is PORTKEY_BASE_URL complete (NYU's ends in /v1/), "
                f"and {gateway.realm} a provider of the gateway (PORTKEY_PROVIDER)? If the bucket "
                "is ok, everything works but the list: an uncertain submission cannot settle "
                "itself."
            )
        yield _failed("job list", e, fix)
        return
    yield Finding("gateway", "ok", f"{gateway.identity} answers")
    yield Finding("key", "ok", "accepted")
    more = ", and older ones that the list does not show" if jobs.has_more else ""
    yield Finding(
        "job list", "ok", f"{count(len(jobs.batches), 'batch job')} of this provider{more}"
    )


def _upload(gateway: Gateway, connection: Connection, model: str) -> Iterator[Finding]:
    """Upload two request lines under a name that no job uses."""
    import pandas as pd

    from nyu_llm_frames._api.accessor import FrameMethods
    from nyu_llm_frames._shared.clock import current_clock
    from nyu_llm_frames._sidecar.folder import new_name

    preview = FrameMethods(pd.DataFrame(_FRAME)).preview(_PROMPT, model=model, n=2, gateway=gateway)
    lines = _lines(preview, model)
    name = f"nyu-llm-frames/doctor-{new_name(current_clock())}/requests.jsonl"
    with io.BytesIO(lines.encode("ascii")) as file:
        try:
            file_id = connection.upload(file, name, model)
        except AuthenticationError as e:
            fix = f"ask {NYU_CONTACT}, or set NYU_LLM_BUCKET to your bucket."
            yield _failed("bucket", e, f"The key may not write to the bucket: {fix}")
        except GatewayUnavailableError as e:
            if e.status_code is None:
                yield _failed("bucket", e, _fix(gateway, e))
                return
            # A 403 of the storage may arrive as a 500: then trying later would not help.
            more = f" Or does the key lack write access? Ask {NYU_CONTACT}."
            yield _failed("bucket", e, _fix(gateway, e) + more, code=exits.ERROR)
        except GatewayError as e:
            fix = f"It comes from {NYU_CONTACT}. If the job list failed as well, begin there."
            yield _failed("bucket", e, f"Is NYU_LLM_BUCKET the name of your bucket? {fix}")
        else:
            yield Finding("bucket", "ok", f"uploaded {len(lines)} bytes: {file_id}")


def _lines(preview: pd.DataFrame, model: str) -> str:
    import pyarrow as pa

    from nyu_llm_frames._stages.requests.bodies import encode, request_lines

    bodies = [encode({"model": model, "messages": m}) for m in preview["messages"]]
    ids = pa.array(preview["custom_id"].tolist(), pa.string())
    return bytes(request_lines(ids, pa.array(bodies, pa.large_string()))).decode("ascii")


def _send(
    gateway: Gateway, model: str, sidecar: Path, timeout: float, *, wanted: bool, sound: bool
) -> Finding:
    """Answer two rows through a real batch job."""
    if not wanted:
        text = f"{model} was not tried: --send makes a batch job of two rows"
        return Finding("batch", "skipped", text)
    if not sound:
        return Finding("batch", "skipped", "the earlier steps must work first")
    import pandas as pd

    from nyu_llm_frames._api.accessor import FrameMethods

    frame = FrameMethods(pd.DataFrame(_FRAME))
    arguments: dict[str, Any] = {"model": model, "gateway": gateway, "sidecar": sidecar}
    try:
        before = frame.estimate(_PROMPT, **arguments)
        out = frame.batch(_PROMPT, timeout=timeout, details=True, on_error="keep", **arguments)
    except RunTimeoutError as e:
        return _late(e, sidecar, timeout)
    except LLMFramesError as e:
        return _failed("batch", e, _batch_fix(e, model, sidecar))
    # Answers that an earlier call stored show nothing about today.
    stored = before.to_pay + before.under_way == 0
    old = f"nothing was sent, {sidecar} has the answers of an earlier call: " if stored else ""
    again = f"To send again, delete {sidecar}." if stored else ""
    if (out["response_status"] == "ok").all():
        text = "; ".join(f"{c}: {r}" for c, r in zip(out["city"], out["response"], strict=True))
        text = f"{' '.join(text.split())[:200]}; {_ways_to_read(gateway, sidecar)}"
        return Finding("batch", "ok", old + text, again)
    errors = "; ".join(out["response_error"].dropna().unique())
    look = f"See: nyu-llm-frames failures {sidecar}"
    fix = f"{look}. {again}" if again else look
    return Finding("batch", "failed", old + errors, fix, exits.NO_GOOD_ANSWER)


def _ways_to_read(gateway: Gateway, sidecar: Path) -> str:
    """Read the output of a finished job both ways, and report how the gateway sends each."""
    from nyu_llm_frames._runs.stored_answers import StoredAnswers

    jobs = [job for job in StoredAnswers(sidecar).jobs() if job.batch_id and job.has_output_file]
    if not jobs:
        return "no output is left to read"
    batch_id, file_id = str(jobs[-1].batch_id), str(jobs[-1].output_file_id)
    connection = gateway.connect()
    ways = {"stored file": connection.content(file_id), "/output": connection.output(batch_id)}
    found = []
    try:
        for name, chunks in ways.items():
            try:
                sizes = [len(chunk) for chunk in chunks]
                found.append(f"{name}: {sum(sizes):,} bytes in {count(len(sizes), 'piece')}")
            except GatewayError as e:
                found.append(f"{name}: {e}")
    finally:
        connection.close()
    return "; ".join(found)


def _late(error: RunTimeoutError, sidecar: Path, timeout: float) -> Finding:
    """Distinguish a slow job from one that the gateway has not accepted yet."""
    from nyu_llm_frames import open_sidecar

    jobs = open_sidecar(sidecar).jobs()
    text = f"submitted; still running after {timeout:g} s, which is normal for batch jobs"
    if jobs["batch_id"].isna().any():
        reasons = "; ".join(jobs["error"].dropna().unique())
        text = f"not submitted after {timeout:g} s: {reasons or error}"
    return Finding("batch", "pending", text, f"Later: nyu-llm-frames wait {sidecar}", exits.PENDING)


def _batch_fix(error: LLMFramesError, model: str, sidecar: Path) -> str:
    match error:
        case UncertainSubmissionError():
            return f"nyu-llm-frames resolve {sidecar} --adopt BATCH_ID, or --resubmit"
        case AuthenticationError():
            return f"May the key use {model!r} for batch inference? Ask {NYU_CONTACT}."
        case BatchJobFailedError() | GatewayError():
            return f"Is {model!r} a model with batch inference? --model names another one."
        case _:
            return ""


def _versions() -> str:
    from importlib import metadata

    import nyu_llm_frames

    parts = [f"nyu-llm-frames {nyu_llm_frames.__version__}", f"Python {platform.python_version()}"]
    for name in ("pandas", "pyarrow", "portkey-ai", "httpx"):
        try:
            parts.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            parts.append(f"{name} is not installed")
    return ", ".join(parts)


def _scratch(folder: Path) -> Iterator[Finding]:
    """Warn of a folder whose files NYU's cluster removes; `folder` is where sidecars are made."""
    for scratch in filter(None, ("/scratch", os.environ.get("SCRATCH"))):
        if folder.resolve().is_relative_to(Path(scratch).resolve()):
            yield Finding(
                "folder",
                "warning",
                f"{folder} is in {scratch}, where files that nobody read for 60 days are removed: "
                "the rows of a removed sidecar would be paid again",
                "Name a sidecar in your home or project folder: --sidecar, or sidecar= in Python.",
            )
            return


def _settings_fix(gateway: Gateway) -> str:
    if gateway.is_local:
        return 'pip install "nyu-llm-frames[local]"'
    missing = [VARIABLES[name] for name in ("api_key", "bucket") if not getattr(gateway, name)]
    lines = [f"export {name}=..." for name in missing]
    if not lines:
        return ""
    return f"{'; '.join(lines)} (the bucket comes from {NYU_CONTACT})"


def _fix(gateway: Gateway, error: LLMFramesError) -> str:
    if not isinstance(error, GatewayUnavailableError):
        return ""
    if error.status_code is not None:
        return (
            f"{gateway.identity} was reached but is having problems: try again in a few "
            f"minutes. If that does not help, write to {NYU_CONTACT}."
        )
    route = gateway.route
    if route is not None and route.proxy is not None and not error.connected:
        return f"Look at {route.proxy.variable} first."
    return (
        f"Can this machine reach {gateway.identity}? NYU's gateway answers only through NYU's VPN; "
        "another address is set with PORTKEY_BASE_URL."
    )


def _print(finding: Finding) -> None:
    marks = {"ok": ("ok", "green"), "failed": ("FAIL", "red"), "pending": ("...", "cyan")}
    word, color = marks.get(finding.state, ("-", "yellow"))
    click.echo(f"{click.style(word.ljust(4), fg=color)}  {finding.step}: {finding.found}")
    if finding.fix:
        click.echo(f"      fix: {finding.fix}")


COMMANDS = (doctor,)
