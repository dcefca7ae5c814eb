"""`sample`: a small real frame that comes with the package, to try things on.

Comes in: nothing. Goes out: a frame; data/CREDIT.txt says where it is from.
"""

from __future__ import annotations

from importlib import resources

import pandas as pd


def sample() -> pd.DataFrame:
    """
    Return a small real frame to try things on: 20 commuted prison sentences.

    Returns
    -------
    pandas.DataFrame
        Columns ``case_id``, ``offense``, ``district_date``, ``sentence``, ``terms_of_grant``; 20
        rows. Each offense names one drug: cocaine or methamphetamine. Some sentences are missing.

    Notes
    -----
    From "commutations" by FiveThirtyEight (https://github.com/fivethirtyeight/data), CC BY 4.0.
    Rows were chosen, nothing in them was changed.

    Examples
    --------
    >>> import nyu_llm_frames as llm
    >>> df = llm.sample()
    >>> df["offense"].iloc[9][:44]
    'Conspiracy to distribute and possess with in'
    >>> df.llm.preview("Which drug? {{ offense }}", n=1)["messages"].iloc[0][0]["role"]
    'user'
    """
    with resources.files("nyu_llm_frames").joinpath("data/commutations_sample.csv").open() as file:
        return pd.read_csv(file)
