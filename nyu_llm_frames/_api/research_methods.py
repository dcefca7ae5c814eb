"""What `df.llm` has for research: hand codes, evaluation, agreement, corrected estimates.

Comes in: a frame and arguments. Goes out: what `research/` computed. It stores nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import pandas as pd

if TYPE_CHECKING:
    from nyu_llm_frames.research.agreement import Agreement
    from nyu_llm_frames.research.correction import Correction
    from nyu_llm_frames.research.evaluation import Evaluation


class ResearchMethods:
    """The methods of `df.llm` that send nothing and need no sidecar."""

    _frame: pd.DataFrame

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

        Labels compare by value, as text. Proportions without weights have Wilson's interval, all
        others the percentile bootstrap within strata; above 20,000 distinct rows of numbers their
        sums are drawn from the normal limit.

        Parameters
        ----------
        truth : str
            Column of hand codes; NA where a row has none.
        predicted : str or list of str
            Column of answers, or several to compare with each other.
        kind : {"auto", "nominal", "ordinal", "numeric", "set"}
            How labels compare. "auto": lists are sets, ordered categories ordinal, numbers numeric
            unless they are ten whole ones at most; all others nominal.
        by : str or list of str, optional
            Columns whose groups are evaluated, too.
        pi : str or float, optional
            Probability of each row to be coded; everything is weighted by 1/pi. Default
            ``{truth}_pi`` when it is there.
        status : str, optional
            Column of statuses; default that of `predicted`, else ``{output}_status``.
        output : str, default "response"
            Name of the run's output, for its details.
        use : {"test", "all"}
            Codes that count: "test" leaves out those that chose the prompt (``{truth}_use``).
        resamples : int, default 1000
        level : float, default 0.95
        seed : int, default 0
            The same numbers come out for the same seed, in any order of rows.

        Returns
        -------
        Evaluation
            Tables ``coverage, metrics, classes, confusion, by, comparison``, and ``plot()``.

        Raises
        ------
        MissingColumnError
            A column that is not there.
        CodesError
            No coded row, labels that cannot match, a probability that is none.

        Examples
        --------
        >>> import pandas as pd, nyu_llm_frames as llm
        >>> df = pd.DataFrame({"code": ["a", "b", "b", None], "response": ["a", "b", "a", "a"]})
        >>> df.llm.evaluate("code", "response").metrics.loc["kappa", "estimate"].round(3)
        np.float64(0.4)
        """
        from nyu_llm_frames.research.evaluation import evaluate

        return evaluate(
            self._frame,
            truth,
            predicted,
            kind=kind,
            by=by,
            pi=pi,
            status=status,
            output=output,
            use=use,
            resamples=resamples,
            level=level,
            seed=seed,
        )

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
        Say how far columns agree: repeats of one prompt, coders, or models.

        Parameters
        ----------
        columns : list of str, optional
            Two or more; default ``{output}_1``, ``{output}_2``, ... Gaps are allowed.
        output : str, default "response"
        kind : {"auto", "nominal", "ordinal", "numeric", "ratio", "set"}
            How values compare, and the level of Krippendorff's alpha: numeric is its interval
            level. See `evaluate` for "auto".
        by : str or list of str, optional
            Columns whose groups are looked at, too.
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
            A column that is not there, less than two, nothing to compare.

        Examples
        --------
        >>> import pandas as pd, nyu_llm_frames as llm
        >>> df = pd.DataFrame({"a": ["x", "y", "y"], "b": ["x", "y", "x"], "c": ["x", "y", None]})
        >>> df.llm.agreement(["a", "b", "c"]).rows["majority"].tolist()
        ['x', 'y', nan]
        """
        from nyu_llm_frames.research.agreement import agreement

        return agreement(
            self._frame,
            columns,
            output=output,
            kind=kind,
            by=by,
            resamples=resamples,
            level=level,
            seed=seed,
        )

    def correct(
        self,
        formula: str,
        *,
        truth: Mapping[str, str],
        pi: str | float | None = None,
        family: Literal["ols", "logit"] = "ols",
        cluster: str | None = None,
        tune: Literal["auto"] | bool = "auto",
        level: float = 0.95,
    ) -> Correction:
        """
        Estimate with the model's labels of all rows and the hand codes of a sample.

        Labels of a model bias what is estimated with them, however accurate they are. A random
        sample of hand codes takes the bias out. Three estimates stand side by side: naive, with the
        model's labels as if they were true; human, with the hand codes alone; and corrected.

        Parameters
        ----------
        formula : str
            As ``"label ~ age + C(region)"``, with the model's columns; ``"label ~ 1"`` is a mean,
            or for categories the share of each class.
        truth : dict of str to str
            The column of hand codes for each of the model's columns: ``{"label": "code"}``.
        pi : str or float, optional
            Probability of each row to be coded: a column, or one number for a simple random
            sample. Default ``{code}_pi`` when it is there.
        family : {"ols", "logit"}
        cluster : str, optional
            Column whose groups are correlated; default the coded unit (``{code}_unit``) when it is
            there, else each row by itself.
        tune : {"auto", True, False}
            Whether the weight of the model's part is chosen for each term to make its variance
            least (prediction-powered inference), or is 1 (design-based supervised learning).
            "auto": 1 unless every class has 20 coded cases.
        level : float, default 0.95

        Returns
        -------
        Correction
            ``table``: a row for each term; ``estimate, se, low, high, p`` below ``naive``,
            ``human`` and ``corrected``, and ``lambda``. ``with_codes(n)`` and ``plot()``.

        Raises
        ------
        MissingColumnError
            A column that is not there.
        CodesError
            No probability, one of 0 or below, drawn rows without a settled code.
        ConfigurationError
            Separation, collinearity, a formula that cannot be read.

        Notes
        -----
        Solves ``sum_i [l m_P,i + R_i / pi_i (m_H,i - l m_P,i)] = 0``: m_P and m_H are a row's
        estimating equation with the model's label and the hand code, R_i whether it is coded. The
        variance is the sandwich that takes draws as independent, which is conservative for
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
            self._frame,
            formula,
            truth=truth,
            pi=pi,
            family=family,
            cluster=cluster,
            tune=tune,
            level=level,
        )
