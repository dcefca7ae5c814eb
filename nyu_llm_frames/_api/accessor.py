"""The accessor ``df.llm``: check, call one function, return. It stores nothing.

Comes in: a frame and arguments. Goes out: results of the stages behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd
from typing_extensions import TypeVar, Unpack

from nyu_llm_frames._api.research_methods import ResearchMethods
from nyu_llm_frames._runs.arguments import Common, Template, collect_arguments, expand_signature
from nyu_llm_frames._tables.open_table import library

if TYPE_CHECKING:
    from nyu_llm_frames._api.run import Run
    from nyu_llm_frames._runs.prepare import PreparedCall
    from nyu_llm_frames._stages.cost.estimate import Estimate


T = TypeVar("T", default=pd.DataFrame)


class TableMethods(ResearchMethods[T]):
    """Batch inference for the rows of a table: ``df.llm``."""

    def __init__(self, table: T) -> None:
        if not library(table):
            raise AttributeError("df.llm works on a DataFrame of pandas or Polars.")
        self._frame = table

    @expand_signature
    def preview(
        self,
        template: Template,
        *,
        model: str = "model",
        n: int = 5,
        **common: Unpack[Common],
    ) -> T:
        """
        Show the first prompts as they would be sent; no network, no key.

        Parameters
        ----------
        template : str, Path, jinja2.Template or list of dict
            See `batch`.
        model : str, optional
            Only changes the request ids: another model makes another request.
        n : int, default 5
            Number of rows.
        **common
            See `batch`.

        Returns
        -------
        pandas.DataFrame
            ``custom_id`` and ``messages`` (lists of dicts) of the first n rows, index kept.

        Examples
        --------
        >>> import pandas as pd, nyu_llm_frames as llm
        >>> df = pd.DataFrame({"city": ["Abu Dhabi", "Shanghai"]})
        >>> df.llm.preview("Where is {{ city }}?")["messages"].iloc[1]
        [{'role': 'user', 'content': 'Where is Shanghai?'}]
        """
        from nyu_llm_frames._runs.preview import preview
        from nyu_llm_frames._shared.allowed import whole_number

        n = whole_number("n", n, 1)
        call = self._prepared(template, model, common, check_columns=False, first=n)
        out: T = preview(call)
        return out

    @expand_signature
    def estimate(
        self,
        template: Template,
        *,
        model: str,
        retries: int = 1,
        **common: Unpack[Common],
    ) -> Estimate:
        """
        Estimate what the batch would send and cost; no network, no key, nothing written.

        Prompt tokens come from the real counts of earlier answers where the sidecar has some, else
        from a tokenizer of the model's family (``pip install "nyu-llm-frames[tokens]"``), else
        from the number of characters; the estimate says which. Answers are expected to be as long
        as earlier ones to the same question. Their upper limit is `max_tokens`, else the 99th
        percentile of those (with a margin below 30 answers), else the model's maximum.

        Parameters
        ----------
        template, model, **common
            See `batch`.
        retries : int, default 1
            Further attempts; the upper end of the cost includes them.

        Returns
        -------
        Estimate
            Rows, requests, tokens with ranges, US dollars as batch and live.

        Examples
        --------
        >>> import pandas as pd, nyu_llm_frames as llm
        >>> df = pd.DataFrame({"city": ["Abu Dhabi", "Shanghai", "Shanghai"]})
        >>> df.llm.estimate("Where is {{ city }}?", model="gemini-3-flash-preview").to_pay
        2
        """
        from nyu_llm_frames._runs.launch import CallExecution, looked_at
        from nyu_llm_frames._runs.prepare import check_retries
        from nyu_llm_frames._shared.clock import current_clock

        call = self._prepared(template, model, common, check_columns=False)
        ctx = looked_at(call, current_clock())
        return CallExecution(call, ctx, retries=check_retries(retries)).estimate()[0]

    @expand_signature
    def trial(
        self,
        template: Template,
        *,
        model: str,
        n: int = 5,
        random_state: Any = None,
        **common: Unpack[Common],
    ) -> T:
        """
        Answer n rows now, at the live rate, with the same requests as the batch.

        The answers are stored, so the batch does not pay for them again, and rows that have an
        answer are not sent again. A live request cannot be looked up at the gateway: one that is
        interrupted by a crash or a lost connection may have been paid for, and the batch pays for
        it again. Only this, and a trial at the same moment as a batch of the same rows, can pay
        twice.

        Parameters
        ----------
        template, model, **common
            See `batch`.
        n : int, default 5
            Number of rows, drawn at random; rows that ``missing="skip"`` leaves out are not drawn.
        random_state : int or numpy.random.Generator, optional
            As in `pandas.DataFrame.sample`; set it to draw the same rows again.

        Returns
        -------
        pandas.DataFrame
            Those rows, in the order of the frame, with the new columns. ``attrs["trial"]`` is a
            dict: tokens, truncated and refused rate, seconds, the cost of the trial and the
            projected cost of the whole frame with a 95% interval.

        Raises
        ------
        LLMFramesError
            As `batch`.

        Examples
        --------
        >>> df.llm.trial("Which drug is named here? {{ offense }}", n=10, random_state=1,
        ...              model="gemini-3-flash-preview")  # doctest: +SKIP
        """
        from nyu_llm_frames._api.trial import trial
        from nyu_llm_frames._shared.clock import current_clock

        arguments = collect_arguments(template, model, common)
        clock = current_clock()
        out: T = trial(self._frame, arguments, n=n, random_state=random_state, clock=clock)
        return out

    @expand_signature
    def submit(
        self,
        template: Template,
        *,
        model: str,
        retries: int = 1,
        max_cost: float | None = None,
        **common: Unpack[Common],
    ) -> Run[T]:
        """
        Upload and submit, and return at once.

        Parameters
        ----------
        template, model, retries, max_cost, **common
            See `batch`.

        Returns
        -------
        Run
            To inspect, wait for and collect.

        Raises
        ------
        LLMFramesError
            As `batch`.
        """
        run = self._run(self._prepared(template, model, common), retries, max_cost)
        run._execution.start()
        return run

    @expand_signature
    def batch(
        self,
        template: Template,
        *,
        model: str,
        wait: bool = True,
        timeout: float | None = None,
        retries: int = 1,
        max_cost: float | None = None,
        on_error: Literal["keep", "raise"] = "keep",
        **common: Unpack[Common],
    ) -> T:
        """
        Answer a prompt for every row, in batch jobs at half the price.

        Repeat the same call at any time, in any kernel: it picks up where it left off. Nothing is
        paid for twice, and a finished call needs neither network nor key.

        Parameters
        ----------
        template : str, Path, jinja2.Template or list of dict
            Jinja template of the prompt. Its variables are the columns; ``row["any column"]`` and
            ``index`` always work. A list of ``{"role", "content"}`` makes several messages.
        model : str
            Name of the model, such as ``"gemini-3-flash-preview"`` or, with its provider,
            ``"@vertexai/gemini-3-flash-preview"``.
        wait : bool, default True
            False takes one step (plan, submit, poll once, collect answers) and returns the frame
            so far.
        timeout : float, optional
            Seconds of waiting before `RunTimeoutError`; the batch jobs continue.
        retries : int, default 1
            Further attempts for requests that failed or got no answer.
        max_cost : float, optional
            Most that the call may cost, in US dollars. Compared with the upper estimate, retries
            included, before anything is uploaded.
        on_error : {"keep", "raise"}, default "keep"
            Whether rows without a good answer cause a warning or a `PartialResultError`.
        system : str, Path or jinja2.Template, optional
            Template of the system message.
        schema : type or dict, optional
            Fields of a structured answer; each becomes a typed column. A parquet file with
            columns of lists or objects is read by
            ``pd.read_parquet(path, dtype_backend="pyarrow")``.
        images : str or list of str, optional
            Columns that hold images or documents: gs:// and https:// URLs, local paths, bytes,
            ``{"url", "mime_type"}``, cells of Hugging Face datasets (``{"bytes", "path"}``), PIL
            images (sent as PNG), or lists of these. An empty list means no image.
        output : str, default "response"
            Name of the new column; its errors are in ``{output}_error``.
        prefix : str, default ""
            Prefix for the names of a schema's columns.
        if_exists : {"error", "replace", "fill"}, default "error"
            What to do when a new column already exists. "fill" sends only the rows that have no
            good answer in these columns (error set, or value missing), with this call's
            parameters, and fills their cells; all other cells stay. With "replace" and "fill", a
            template that loops over `row` skips the columns of an earlier run, unless it names
            them.
        details : bool, default False
            Whether to add status, finish reason, tokens, cost, model and custom_id. Those of an
            earlier call are replaced or filled without it, too.
        missing : {"error", "skip"}, default "error"
            What to do with rows whose prompt prints or compares a missing value that the template
            does not handle, as ``{% if x %}``, ``x is none``, ``x or "?"`` and
            ``x | default("?")`` do. A `jinja2.Template` does not show its source: there, a missing
            value is always an error.
        max_tokens, temperature, top_p, seed, stop
            Sent to the model as given; unset ones are not sent.
        thinking : str or int, optional
            "off", "low", "medium", "high", or a budget in tokens. With it, `max_tokens` limits the
            answer alone: the number sent adds the room that thinking needs.
        params : dict, optional
            Further fields of the request body.
        sidecar : str or Path, optional
            The run's folder, its sidecar, which keeps jobs and answers; default ``llm_sidecar``.
        gateway : Gateway or "local", optional
            By default the one that the environment sets.

        Returns
        -------
        pandas.DataFrame
            A new frame: same index, order, dtypes and columns, plus the new columns.

        Raises
        ------
        TemplateError, MissingColumnError, MissingValueError, ColumnExistsError, RequestError
            Before anything is sent.
        ConfigurationError
            A missing credential, before anything is sent, or an invalid argument.
        AuthenticationError, GatewayError
            The gateway refused.
        UncertainSubmissionError
            A submission may or may not have created a job; the job list cannot settle it.
        BatchJobFailedError
            A batch job ended without any answer.
        RunTimeoutError
            `timeout` has passed.
        PartialResultError
            With ``on_error="raise"``.

        Examples
        --------
        >>> df.llm.batch("Which drug is named here? {{ offense }}",
        ...              model="gemini-3-flash-preview")  # doctest: +SKIP
        """
        from nyu_llm_frames._runs.prepare import check_endings

        seconds = check_endings(wait, timeout, on_error)
        run = self._run(self._prepared(template, model, common), retries, max_cost)
        run._execution.answer(wait, seconds)
        return run._joined(on_error)

    @expand_signature
    def to_jsonl(
        self, path: str | Path, template: Template, *, model: str, **common: Unpack[Common]
    ) -> list[Path]:
        """
        Write the request files without sending them: for manual upload, or another runner.

        Parameters
        ----------
        path : str or Path
            The JSON Lines file; above the limits of one file, several numbered ones are written.
        template, model, **common
            See `batch`.

        Returns
        -------
        list of pathlib.Path
            The files written; none when every request is answered or under way already.
        """
        from nyu_llm_frames._api.exchange import to_jsonl

        return to_jsonl(self._prepared(template, model, common, check_columns=False), path)

    @expand_signature
    def from_jsonl(
        self,
        path: str | Path | Sequence[str | Path],
        template: Template,
        *,
        model: str,
        **common: Unpack[Common],
    ) -> T:
        """
        Import an output file into the sidecar, and join its answers to the rows.

        Parameters
        ----------
        path : str, Path or sequence of them
            The output for the files of `to_jsonl`: fetched by hand, or written by
            ``vllm run-batch``.
        template, model, **common
            As given to `to_jsonl`. Later calls of `batch` with them find the answers.

        Returns
        -------
        pandas.DataFrame
            As from `batch`; rows without an answer in the sidecar are NA.

        Raises
        ------
        ConfigurationError
            When no line belongs to a row of this call.
        """
        from nyu_llm_frames._api.exchange import from_jsonl

        paths = [path] if isinstance(path, str | Path) else list(path)
        out: T = from_jsonl(self._prepared(template, model, common), paths)
        return out

    def _prepared(self, template: Template, model: str, common: Common, **how: Any) -> PreparedCall:
        # Imported here and in the methods: importing the package stays as fast as pandas.
        from nyu_llm_frames._runs.rendering import prepare

        return prepare(self._frame, collect_arguments(template, model, common), **how)

    def _run(self, call: PreparedCall, retries: int, max_cost: float | None) -> Run[T]:
        from nyu_llm_frames._api.run import Run

        return Run(call, retries, max_cost)


class FrameMethods(TableMethods[pd.DataFrame]):
    """The methods of ``df.llm`` on a pandas frame."""
