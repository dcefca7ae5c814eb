"""The accessor ``ddf.llm``: check, make one call, return. It stores nothing.

Comes in: a Dask frame and arguments. Goes out: what the call made.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd
from typing_extensions import Unpack

from nyu_llm_frames._api.research_methods import ResearchMethods
from nyu_llm_frames._runs.arguments import Common, Template, collect_arguments, expand_signature
from nyu_llm_frames._runs.prepare import (
    check_endings,
    check_prompts_differ,
    check_retries,
)
from nyu_llm_frames._runs.preview import preview
from nyu_llm_frames._shared import options as _options
from nyu_llm_frames._shared.allowed import whole_number
from nyu_llm_frames._shared.clock import current_clock
from nyu_llm_frames._stages.cost.estimate import check_max_cost
from nyu_llm_frames.dask.dask_run import DaskCall
from nyu_llm_frames.errors import ConfigurationError

if TYPE_CHECKING:
    from nyu_llm_frames._stages.cost.estimate import Estimate
    from nyu_llm_frames.dask.submitted import DaskRun


class DaskMethods:
    """Batch inference for the rows of a Dask frame: ``ddf.llm``. See `nyu_llm_frames.dask`."""

    def __init__(self, frame: Any) -> None:
        self._frame = frame

    @expand_signature
    def preview(
        self, template: Template, *, model: str = "model", n: int = 5, **common: Unpack[Common]
    ) -> pd.DataFrame:
        """
        Show the first prompts as they would be sent; no network, no key.

        Parameters
        ----------
        template, model, **common
            As ``df.llm.preview``.
        n : int, default 5
            Number of rows; the first partitions are computed until they are there.

        Returns
        -------
        pandas.DataFrame
            The rows' index, with ``custom_id`` and ``messages``.
        """
        n, arguments = whole_number("n", n, 1), collect_arguments(template, model, common)
        call = DaskCall(self._frame, arguments, current_clock(), check_columns=False)
        rows = call.first_rows(n, used=True)
        check_prompts_differ(call.head, list(self._frame.columns), len(rows))
        shown: pd.DataFrame = preview(call.work.render(rows))
        return shown

    @expand_signature
    def trial(
        self,
        template: Template,
        *,
        model: str,
        n: int = 5,
        random_state: Any = None,
        **common: Unpack[Common],
    ) -> pd.DataFrame:
        """
        Answer n rows now, at the live rate, with the very same requests as the batch.

        Parameters
        ----------
        template, model, **common
            As ``df.llm.trial``.
        n : int, default 5
            Number of rows: the first ones, since the others would have to be computed.
        random_state : None
            Nothing is drawn here. ``ddf.sample(frac=...)`` draws, and is a Dask frame.

        Returns
        -------
        pandas.DataFrame
            Those rows with the new columns. The projection in ``attrs["trial"]`` is of these rows;
            `estimate` is of all.
        """
        n = whole_number("n", n, 1)
        if random_state is not None:
            raise ConfigurationError(
                "A trial of a Dask frame takes its first rows; random_state= has no meaning here. "
                "Draw first: ddf.sample(frac=0.01, random_state=1).llm.trial(...)"
            )
        from nyu_llm_frames._api.trial import trial

        arguments, clock = collect_arguments(template, model, common), current_clock()
        rows = DaskCall(self._frame, arguments, clock).first_rows(n)
        tried: pd.DataFrame = trial(rows, arguments, n=n, random_state=None, clock=clock)
        return tried

    @expand_signature
    def estimate(
        self, template: Template, *, model: str, retries: int = 1, **common: Unpack[Common]
    ) -> Estimate:
        """
        Estimate what the batch would send and cost: every partition is rendered once.

        Parameters
        ----------
        template, model, retries, **common
            As ``df.llm.estimate``.

        Returns
        -------
        Estimate
            Of all rows.
        """
        arguments = collect_arguments(template, model, common)
        call = DaskCall(self._frame, arguments, current_clock(), check_columns=False)
        return call.estimate(check_retries(retries))

    @expand_signature
    def submit(
        self,
        template: Template,
        *,
        model: str,
        retries: int = 1,
        max_cost: float | None = None,
        **common: Unpack[Common],
    ) -> DaskRun:
        """
        Render every partition, upload and submit, and return at once.

        Parameters
        ----------
        template, model, retries, max_cost, **common
            As ``df.llm.submit``.

        Returns
        -------
        DaskRun
            To wait for and collect; ``result()`` is the lazy frame.
        """
        from nyu_llm_frames.dask.submitted import DaskRun

        attempts = check_retries(retries)
        limit = check_max_cost(max_cost, _options.current().max_cost)
        call = DaskCall(self._frame, collect_arguments(template, model, common), current_clock())
        call.submit(attempts, limit)
        return DaskRun(call, attempts, limit)

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
    ) -> Any:
        """
        Answer a prompt for every row, in batch jobs at half the price.

        Every partition is rendered once, by the workers, with only the columns that the prompts
        use. This process plans, submits, waits and stores; no worker is needed meanwhile. The
        frame that comes back is lazy: each partition is joined with its answers when it is
        computed, without network or lock. Persist or write a frame first if its rows differ
        from run to run.

        Parameters
        ----------
        template, model, wait, retries, max_cost, on_error, **common
            As ``df.llm.batch``, with the same requests and ids. A `jinja2.Template` object cannot
            travel: give its text. ``sidecar=`` is a folder that every machine shares. ``index`` is
            the row's label in its partition.
        timeout : float, optional
            Seconds of waiting for batch jobs before `RunTimeoutError`; also how long there may be
            no worker before `WorkersLostError` (ten minutes by default). The jobs continue.

        Returns
        -------
        dask.dataframe.DataFrame
            Same columns and order, partitions and divisions, with the new columns.

        Raises
        ------
        LLMFramesError
            As ``df.llm.batch``.
        SidecarError
            A worker does not see the sidecar's folder.
        WorkersLostError
            There is no worker; make the same call again.
        PartitionError
            A partition ends its workers, before anything is planned.
        PartitionChangedError
            In ``compute()``: a partition has other rows than those that were sent.

        Examples
        --------
        >>> import dask.dataframe as dd, nyu_llm_frames.dask
        >>> ddf = dd.read_parquet("/scratch/you/offenses/")  # doctest: +SKIP
        >>> out = ddf.llm.batch("Which drug is named here? {{ offense }}",
        ...                     model="gemini-3-flash-preview",
        ...                     sidecar="/archive/you/offenses.llm")  # doctest: +SKIP
        >>> out.to_parquet("/scratch/you/answers/")  # doctest: +SKIP
        """
        seconds, attempts = check_endings(wait, timeout, on_error), check_retries(retries)
        limit = check_max_cost(max_cost, _options.current().max_cost)
        arguments = collect_arguments(template, model, common)
        call = DaskCall(self._frame, arguments, current_clock(), timeout=seconds)
        return call.batch(wait, attempts, limit, on_error)

    def __getattr__(self, name: str) -> Any:
        if name in vars(ResearchMethods) and not name.startswith("_"):
            raise AttributeError(
                f"ddf.llm has no {name}: hand codes and statistics need their rows in memory. "
                f"Compute the columns that they need first: ddf[columns].compute().llm.{name}(...)."
            )
        raise AttributeError(f"ddf.llm has no {name!r}. It has {', '.join(self.__dir__())}.")

    def __dir__(self) -> Sequence[str]:
        return [name for name in vars(DaskMethods) if not name.startswith("_")]
