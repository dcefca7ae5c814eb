"""The public signatures, as a person uses them. Only type-checked, never run.

`assert_type` says what comes out; the lines with `type: ignore` must be wrong (an unused one is
an error, too).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, assert_type

import pandas as pd

import nyu_llm_frames as llm
from nyu_llm_frames import errors
from nyu_llm_frames._api.accessor import FrameMethods

df = pd.DataFrame({"offense": ["a"]})
# Type checkers do not know the accessors that pandas is given at run time.
methods = FrameMethods(df)

gateway = llm.Gateway(
    api_key="k",
    base_url="https://example.org/v1",
    provider="@vertexai",
    bucket="b",
    vertex_project_id="p",
)
assert_type(gateway, llm.Gateway)
assert_type(llm.Gateway(), llm.Gateway)
assert_type(llm.Gateway.local(), llm.Gateway)
llm.Gateway(api_key=3)  # type: ignore[arg-type]

# --- df.llm
out = methods.batch("Which drug? {{ offense }}", model="gemini-3-flash-preview")
assert_type(out, pd.DataFrame)
methods.batch(
    template=Path("prompt.txt"),
    model="m",
    system="Be brief",
    schema=None,
    images=None,
    output="response",
    prefix="",
    if_exists="replace",
    details=True,
    missing="skip",
    max_tokens=10,
    temperature=0.5,
    top_p=1,
    seed=7,
    stop=["END"],
    thinking=None,
    params={"top_k": 5},
    sidecar=Path("here"),
    gateway="local",
    wait=False,
    timeout=10.0,
    retries=2,
    max_cost=1.5,
    on_error="raise",
)
methods.batch([{"role": "user", "content": "{{ offense }}"}], model="m", gateway=gateway)
methods.batch("x", model="m", on_error="ignore")  # type: ignore[arg-type]
methods.batch("x", model="m", missing="drop")  # type: ignore[arg-type]
methods.batch("x", model="m", if_exists="append")  # type: ignore[arg-type]
methods.batch("x", model="m", temprature=1)  # type: ignore[call-arg]
methods.batch("x", model="m", gateway="vertex")  # type: ignore[arg-type]
methods.batch("x", "m")  # type: ignore[call-arg]
methods.batch("x")  # type: ignore[call-arg]

assert_type(methods.preview("x", n=3), pd.DataFrame)
assert_type(methods.estimate("x", model="m").to_pay, int)
assert_type(methods.trial("x", model="m", n=3, random_state=1), pd.DataFrame)

# --- a run
run = methods.submit("x", model="m", retries=1, max_cost=2.0)
assert_type(run, llm.Run)
assert_type(run.status, pd.DataFrame)
assert_type(run.poll(), llm.Run)
assert_type(run.wait(timeout=3), llm.Run)
assert_type(run.result(), pd.DataFrame)
assert_type(run.failures(), pd.DataFrame)
assert_type(run.retry(), llm.Run)
assert_type(run.resolve(adopt="1"), llm.Run)
assert_type(run.resolve(resubmit=True), llm.Run)
assert_type(run.cancel(), list[str])
assert_type(run.usage, dict[str, int])
assert_type(run.cost, float | None)
assert_type(run.provenance(), dict[str, Any])

# --- beside it
sidecar = llm.open_sidecar("llm_sidecar")
assert_type(sidecar.jobs(), pd.DataFrame)
assert_type(sidecar.answers(raw=True), pd.DataFrame)
assert_type(sidecar.failures(prompts=True), pd.DataFrame)
assert_type(sidecar.runs(), pd.DataFrame)
assert_type(sidecar.export(Path("copy")), Path)
with llm.set_options(gateway=gateway, sidecar="here", progress=False, poll_interval_s=5):
    pass
with llm.set_options(progress=lambda progress: print(progress.message)):
    pass
llm.register("batches")

# --- errors
try:
    run.wait()
except errors.UncertainSubmissionError as e:
    assert_type(e.run, errors.ResumableRun | None)
    assert_type(e.input_file_id, str)
except errors.BatchJobFailedError as e:
    assert_type(e.jobs, Mapping[str, str])
except errors.PartialResultError as e:
    assert_type(e.frame, pd.DataFrame | None)
    assert_type(e.counts, Mapping[str, int])
except errors.GatewayError as e:
    assert_type(e.status_code, int | None)
except TimeoutError:
    pass
