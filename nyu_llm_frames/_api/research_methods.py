"""Research methods of `df.llm`: hand codes, evaluation, agreement, corrected estimates.

Comes in: a frame and arguments. Goes out: results of `research/`. It stores nothing.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal

import pandas as pd
from typing_extensions import TypeVar

from nyu_llm_frames._tables.open_table import open_rows

if TYPE_CHECKING:
    from nyu_llm_frames.research.agreement import Agreement
    from nyu_llm_frames.research.correction import Correction
    from nyu_llm_frames.research.evaluation import Evaluation


T = TypeVar("T", default=pd.DataFrame)


def _pandas(table: Any) -> pd.DataFrame:
    return table if isinstance(table, pd.DataFrame) else open_rows(table)[0].as_pandas()


class ResearchMethods(Generic[T]):
    """The methods of `df.llm` that send nothing and need no sidecar."""

    _frame: T

    def to_code(
        self,
        folder: str | Path,
        show: str | Sequence[Hashable],
        *,
        n: int = 200,
        by: Hashable | Sequence[Hashable] | None = None,
        allocation: Literal["proportional", "equal"] = "proportional",
        labels: Sequence[object] | None = None,
        coders: Sequence[str] = ("a", "b"),
        format: Literal["xlsx", "csv"] = "xlsx",
        use: Literal["test", "dev"] = "test",
        seed: int = 0,
    ) -> pd.DataFrame:
        """
        Draw a random sample to be coded by hand, and write a file for each coder.

        A unit is what a coder reads: rows with equal texts are one unit, coded once. The files hold
        no predictions. Call again with a larger `n` to add units: a file that holds codes is never
        overwritten, and existing codes stay part of the sample.

        Parameters
        ----------
        folder : str or Path
            Where ``codes_a.xlsx``, ... and ``codes_design.parquet`` go; created if missing.
        show : str or list of str
            The columns shown to coders.
        n : int, default 200
            Number of units in the whole sample.
        by : str or list of str, optional
            Strata: columns such as the model's label, which halves the intervals of rare classes.
            NA is a stratum, other than the text "NA". Each gives at least two units, so there may
            be more than `n`.
        allocation : {"proportional", "equal"}, default "proportional"
            Whether strata give units in proportion to their size, or equally many.
        labels : list, optional
            The possible codes, in order: a drop-down in .xlsx, and checked when read.
        coders : sequence of str, default ("a", "b")
            Each gets a file, in its own order.
        format : {"xlsx", "csv"}, default "xlsx"
            CSV files are UTF-8 with BOM; in them, an apostrophe precedes a text that a spreadsheet
            program would read as a formula.
        use : {"test", "dev"}, default "test"
            Test codes evaluate a prompt. To choose a prompt, draw dev codes into the same folder:
            they come from the other end of the same order, so no unit is in both.
        seed : int, default 0
            Seed of the draw, which does not depend on the order of rows.

        Returns
        -------
        pandas.DataFrame
            The design, a row per unit: ``unit``, ``stratum``, ``N_h`` and ``n_h`` (units of the
            stratum, and drawn ones), ``pi`` = n_h / N_h, ``use``, ``seed``, ``by``,
            ``custom_id`` (where `details` are in the frame), ``rows``.

        Raises
        ------
        CodesError
            The draw does not match what the folder holds, a file is open in a spreadsheet program,
            or a text is longer than an Excel cell (32,767 characters).
        ConfigurationError, MissingColumnError
            An invalid argument.

        Notes
        -----
        Strata are allocated by the divisor method of Webster and Sainte-Laguë, which gives whole
        shares exactly and never takes a unit away when `n` grows.

        Examples
        --------
        >>> import pandas as pd, nyu_llm_frames as llm
        >>> df = pd.DataFrame({"text": ["It broke.", "Superb.", "It broke."], "label": list("npn")})
        >>> design = df.llm.to_code("codes", "text", by="label", labels=["n", "p"], format="csv")
        >>> design[["stratum", "N_h", "n_h", "pi", "rows"]]
          stratum  N_h  n_h   pi  rows
        0       n    1    1  1.0     2
        1       p    1    1  1.0     1
        """
        from nyu_llm_frames.research.hand_codes import to_code

        return to_code(
            open_rows(self._frame)[0], folder, show, n=n, by=by, allocation=allocation,
            labels=labels, coders=coders, format=format, use=use, seed=seed,
        )  # fmt: skip

    def from_codes(
        self,
        folder: str | Path,
        *,
        output: str = "code",
        settle: Literal["agree", "majority"] = "agree",
    ) -> T:
        """
        Read the coders' codes, and join them to the rows.

        Where coders differ, the code is NA, one warning counts these units, and
        ``codes_settle.xlsx`` (.csv if a text is too long for Excel) shows the codes side by side.
        Fill in its column ``code`` and call again: that code decides.

        Parameters
        ----------
        folder : str or Path
            As given to `to_code`. All coders' files in it are read, including half-filled ones. A
            file that is missing is a warning.
        output : str, default "code"
            Name of the new column.
        settle : {"agree", "majority"}, default "agree"
            Whether all who coded a unit must agree, or more than half of them.

        Returns
        -------
        DataFrame or LazyFrame
            A new table of the same kind with ``{output}``, each coder's codes as ``{output}_a``,
            ..., ``{output}_pi`` (the probability with which the row was drawn),
            ``{output}_stratum`` and ``{output}_use``, NA where a row was not drawn, and
            ``{output}_unit`` of every row. Codes are text, or categories in the order of `labels`.
            Columns of an earlier call are replaced.

        Raises
        ------
        CodesError
            With file, row and unit: an unknown label or unit, two codes for one unit, a text that
            no row of the frame has.
        ColumnExistsError, MissingColumnError

        Examples
        --------
        >>> df = df.llm.from_codes("codes")  # doctest: +SKIP
        """
        from nyu_llm_frames.research.hand_codes import from_codes

        out: T = from_codes(open_rows(self._frame)[0], folder, output=output, settle=settle)
        return out

    def evaluate(
        self,
        truth: str,
        predicted: str | Sequence[str],
        *,
        kind: Literal["auto", "nominal", "ordinal", "numeric", "set"] = "auto",
        by: str | Sequence[str] | None = None,
        pi: str | float | None = None,
        status: str | None = None,
        output: str = "response",
        use: Literal["test", "all"] = "test",
        resamples: int = 1000,
        level: float = 0.95,
        seed: int = 0,
    ) -> Evaluation:
        """
        Compare answers with hand codes: accuracy, F1, kappas, alpha and more, with intervals.

        Labels are compared by value, as text. Proportions of rows with one weight have Wilson's
        interval, all others the percentile bootstrap within strata; above 20,000 distinct rows of
        numbers, their sums are drawn from the normal limit.

        Parameters
        ----------
        truth : str
            Column of hand codes; NA where a row has none.
        predicted : str or list of str
            Column of answers, or several to compare with each other.
        kind : {"auto", "nominal", "ordinal", "numeric", "set"}
            How labels are compared. "auto": lists are sets, ordered categories ordinal, numbers
            numeric (nominal if they are at most ten whole numbers), all others nominal.
        by : str or list of str, optional
            Columns whose groups are evaluated, too.
        pi : str or float, optional
            Probability that a row is coded; everything is weighted by 1/pi. Default ``{truth}_pi``
            when it exists; for the codes of one coder, ``code_a``, that of ``code``. Where it
            differs between rows, counts are sums of weights, scaled to the number of coded rows,
            and ``comparison`` has no exact test.
        status : str, optional
            Column of statuses; default that of `predicted`, else ``{output}_status``.
        output : str, default "response"
            The run's `output`, to find its details.
        use : {"test", "all"}
            Codes that count: "test" leaves out those used to choose the prompt
            (``{truth}_use``, found as `pi` is).
        resamples : int, default 1000
        level : float, default 0.95
        seed : int, default 0
            The same seed gives the same numbers, in any order of rows.

        Returns
        -------
        Evaluation
            Tables ``coverage, metrics, classes, confusion, by, comparison``, and ``plot()``.

        Raises
        ------
        MissingColumnError
            A missing column.
        CodesError
            No coded row, labels that cannot match, an invalid probability.
        ConfigurationError
            An invalid argument, or `truth` among `predicted`.

        Examples
        --------
        >>> import pandas as pd, nyu_llm_frames as llm
        >>> df = pd.DataFrame({"code": ["a", "b", "b", None], "response": ["a", "b", "a", "a"]})
        >>> round(float(df.llm.evaluate("code", "response").metrics.loc["kappa", "estimate"]), 3)
        0.4
        """
        from nyu_llm_frames.research.evaluation import evaluate

        return evaluate(
            _pandas(self._frame), truth, predicted, kind=kind, by=by, pi=pi, status=status,
            output=output, use=use, resamples=resamples, level=level, seed=seed,
        )  # fmt: skip

    def agreement(
        self,
        columns: Sequence[str] | None = None,
        *,
        output: str = "response",
        kind: Literal["auto", "nominal", "ordinal", "numeric", "ratio", "set"] = "auto",
        by: str | Sequence[str] | None = None,
        resamples: int = 1000,
        level: float = 0.95,
        seed: int = 0,
    ) -> Agreement:
        """
        Measure how far columns agree: repeats of one prompt, coders, or models.

        Beside columns of `from_codes` (``code_a`` and ``code_unit``), rows with the same unit count
        once if all columns agree on their values. Where a column differs within a unit, as answers
        may, all rows count, and intervals resample units. ``rows`` has every row.

        Parameters
        ----------
        columns : list of str, optional
            Two or more; default ``{output}_1``, ``{output}_2``, ... Gaps are allowed.
        output : str, default "response"
        kind : {"auto", "nominal", "ordinal", "numeric", "ratio", "set"}
            How values are compared, and the level of Krippendorff's alpha: numeric is its interval
            level. See `evaluate` for "auto".
        by : str or list of str, optional
            Columns whose groups are measured, too.
        resamples : int, default 1000
        level : float, default 0.95
        seed : int, default 0

        Returns
        -------
        Agreement
            Tables ``metrics, rows, pairs, by``, and ``plot()``.

        Raises
        ------
        MissingColumnError, ConfigurationError, CodesError
            A missing column, fewer than two, nothing to compare.

        Examples
        --------
        >>> import pandas as pd, nyu_llm_frames as llm
        >>> df = pd.DataFrame({"a": ["x", "y", "y"], "b": ["x", "y", "x"], "c": ["x", "y", None]})
        >>> df.llm.agreement(["a", "b", "c"]).rows["majority"].tolist()
        ['x', 'y', nan]
        """
        from nyu_llm_frames.research.agreement import agreement

        return agreement(
            _pandas(self._frame), columns, output=output, kind=kind, by=by,
            resamples=resamples, level=level, seed=seed,
        )  # fmt: skip

    def correct(
        self,
        formula: str,
        *,
        truth: Mapping[str, str],
        pi: str | float | None = None,
        family: Literal["ols", "logit"] = "ols",
        cluster: str | Sequence[str] | None = None,
        tune: Literal["auto"] | bool = "auto",
        level: float = 0.95,
    ) -> Correction:
        """
        Estimate with the model's labels of all rows and the hand codes of a sample.

        A model's labels bias the estimates made with them, however accurate they are. A random
        sample of hand codes removes the bias. Three estimates stand side by side: naive, with the
        model's labels as if they were true; human, with the hand codes alone; and corrected.

        Parameters
        ----------
        formula : str
            As ``"label ~ age + C(region)"``, with the model's columns; ``"label ~ 1"`` is a mean,
            or for categories the share of each class.
        truth : dict of str to str
            The column of hand codes for each of the model's columns: ``{"label": "code"}``.
        pi : str or float, optional
            Probability that a row is coded: a column, or one number for a simple random sample.
            Default ``{code}_pi`` when it exists, as in `evaluate`.
        family : {"ols", "logit"}
        cluster : str or list of str, optional
            Columns that define correlated groups: the shown text, when rows share texts. None of
            their cells may be missing. Default the coded unit (``{code}_unit``) when it exists,
            else each row by itself.
        tune : {"auto", True, False}
            Whether the weight of the model's part minimizes the variance of each term
            (prediction-powered inference), or is 1 (design-based supervised learning). "auto": 1
            unless every class has 20 coded cases, also those that only the model gave. It is always
            1 where all codes are the same.
        level : float, default 0.95

        Returns
        -------
        Correction
            ``table``: a row for each term; ``estimate, se, low, high, p`` under ``naive``,
            ``human`` and ``corrected``, and ``lambda``. ``with_codes(n)`` and ``plot()``.

        Raises
        ------
        MissingColumnError
            A missing column.
        CodesError
            No probability, one of 0 or below, or drawn rows without a settled code.
        MissingValueError
            Missing numbers of the formula, or missing clusters.
        ConfigurationError
            Separation, collinearity, a formula that cannot be read.

        Notes
        -----
        Solves ``sum_i [l m_P,i + R_i / pi_i (m_H,i - l m_P,i)] = 0``: m_P and m_H are a row's
        estimating equation with the model's label and the hand code, R_i whether it is coded. The
        variance is the sandwich that treats draws as independent, which is conservative for
        samples of fixed size. Sources: Egami, Hinck, Stewart & Wei 2023, NeurIPS 36 (and their R
        package dsl); Angelopoulos, Duchi & Zrnic 2023, arXiv:2311.01453.

        Examples
        --------
        >>> import pandas as pd, nyu_llm_frames as llm
        >>> df = pd.DataFrame({"label": [1, 1, 0, 0] * 50, "code": [1, 0, None, None] * 50})
        >>> found = df.llm.correct("label ~ 1", truth={"label": "code"}, pi=0.5)
        >>> found.table["naive"]["estimate"].item(), found.table["human"]["estimate"].item()
        (0.5, 0.5)
        """
        from nyu_llm_frames.research.correction import correct

        return correct(
            _pandas(self._frame), formula, truth=truth, pi=pi, family=family, cluster=cluster,
            tune=tune, level=level,
        )  # fmt: skip
