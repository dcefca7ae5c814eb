"""`sample`: small real frames that come with the package, to try things on.

Comes in: a name. Goes out: a frame; data/CREDIT.txt says where it is from.
"""

from __future__ import annotations

from importlib import resources
from typing import Literal, get_args

import pandas as pd

from nyu_llm_frames.errors import ConfigurationError

Name = Literal["offenses", "speeches"]


def sample(name: Name = "offenses") -> pd.DataFrame:
    """
    Return a small real frame to try things on.

    Parameters
    ----------
    name : {"offenses", "speeches"}, default "offenses"
        "offenses": 20 commuted prison sentences with ``case_id``, ``offense``, ``district_date``,
        ``sentence`` and ``terms_of_grant``. Each offense names one drug, cocaine or
        methamphetamine; some sentences are missing. "speeches": 36 paragraphs of governors'
        speeches of 2019 with ``state``, ``governor``, ``party`` and ``paragraph``.

    Returns
    -------
    pandas.DataFrame

    Notes
    -----
    From FiveThirtyEight (https://github.com/fivethirtyeight/data), CC BY 4.0. Rows were chosen,
    and speeches cut into paragraphs; no text was changed.

    Examples
    --------
    >>> import nyu_llm_frames as llm
    >>> df = llm.sample()
    >>> df["offense"].iloc[9][:44]
    'Conspiracy to distribute and possess with in'
    >>> df.llm.preview("Which drug? {{ offense }}", n=1)["messages"].iloc[0][0]["role"]
    'user'
    """
    if name not in get_args(Name):
        raise ConfigurationError(f'The samples are "offenses" and "speeches", not {name!r}.')
    file = {"offenses": "commutations_sample.csv", "speeches": "speeches_sample.csv"}[name]
    place = resources.files("nyu_llm_frames").joinpath("_api", "data", file)
    with place.open(encoding="utf-8") as lines:
        return pd.read_csv(lines)
