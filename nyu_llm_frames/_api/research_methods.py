"""The methods of `df.llm` for research: check, call one function, return.

Comes in: a frame and arguments. Goes out: what `research` made, which is imported when it is used.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import pandas as pd


class ResearchMethods:
    """Hand codes."""

    _frame: pd.DataFrame

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

        A unit is what the coder sees: rows with equal texts are one, coded once. Files hold no
        prediction. Call again with a larger `n` to add units: a file that holds codes is never
        written over, and all codes made stay part of the sample.

        Parameters
        ----------
        folder : str or Path
            Where ``codes_a.xlsx``, ... and ``codes_design.parquet`` go; made when not there.
        show : str or list of str
            The columns that coders see.
        n : int, default 200
            Number of units in the whole sample.
        by : str or list of str, optional
            Strata: columns such as the model's label, which halves the intervals of rare classes.
            NA is a stratum. Each gives at least two units, so that there may be more than `n`.
        allocation : {"proportional", "equal"}, default "proportional"
            Whether strata give units by their size, or as many each.
        labels : list, optional
            The codes there are, in their order: a drop-down in .xlsx, and checked when read.
        coders : sequence of str, default ("a", "b")
            Each gets a file, in an order of its own.
        format : {"xlsx", "csv"}, default "xlsx"
            CSV files are UTF-8 with BOM; in them, an apostrophe stands before a text that a
            spreadsheet program would take for a formula.
        use : {"test", "dev"}, default "test"
            Test codes judge a prompt. To choose one, draw dev codes into the same folder: they
            come from the other end of the same order, and none is in both.
        seed : int, default 0
            Of the draw, which does not depend on the order of rows.

        Returns
        -------
        pandas.DataFrame
            The design, a row per unit: ``unit``, ``stratum``, ``N_h`` and ``n_h`` (units of the
            stratum, and drawn ones), ``pi`` = n_h / N_h, ``use``, ``seed``, ``by``,
            ``custom_id`` (where `details` are in the frame), ``rows``.

        Raises
        ------
        CodesError
            The draw does not go with what the folder holds, a file is open in a spreadsheet
            program, or a text is longer than a cell of Excel (32,767 characters).
        ConfigurationError, MissingColumnError
            An argument without meaning.

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
            self._frame,
            folder,
            show,
            n=n,
            by=by,
            allocation=allocation,
            labels=labels,
            coders=coders,
            format=format,
            use=use,
            seed=seed,
        )

    def from_codes(
        self,
        folder: str | Path,
        *,
        output: str = "code",
        settle: Literal["agree", "majority"] = "agree",
    ) -> pd.DataFrame:
        """
        Read what coders wrote, and join it to the rows.

        Where coders differ the code is NA, one warning counts them, and ``codes_settle.xlsx``
        shows their codes side by side. Fill in its column ``code`` and call again: it decides.

        Parameters
        ----------
        folder : str or Path
            As given to `to_code`. All coders' files in it are read, half-filled ones too.
        output : str, default "code"
            Name of the new column.
        settle : {"agree", "majority"}, default "agree"
            Whether all who coded a unit must agree, or more than half of them.

        Returns
        -------
        pandas.DataFrame
            A new frame with ``{output}``, each coder's codes as ``{output}_a``, ...,
            ``{output}_pi`` (the probability with which the row was drawn), ``{output}_stratum``
            and ``{output}_use``; NA where a row was not drawn. Codes are text, or categories in
            the order of `labels`. Columns that an earlier call made are replaced.

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

        return from_codes(self._frame, folder, output=output, settle=settle)
