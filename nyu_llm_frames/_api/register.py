"""`register`: the accessor under a name, where pandas has it not already.

Comes in: a name. Goes out: ``df.<name>``.
"""

from __future__ import annotations

import pandas as pd

from nyu_llm_frames._api.accessor import FrameMethods
from nyu_llm_frames.errors import ConfigurationError


def register(name: str = "llm") -> None:
    """
    Register the accessor under another name, when another package has taken ``df.llm``.

    Parameters
    ----------
    name : str
        As ``df.<name>``.
    """
    if not isinstance(name, str) or not name.isidentifier():
        raise ConfigurationError(f"name must be a Python name, not {name!r}.")
    taken = getattr(pd.DataFrame, name, None)
    if taken is not None and taken is not FrameMethods:
        raise ConfigurationError(
            f"pandas.DataFrame has {name!r} already. Choose another name: "
            'nyu_llm_frames.register("batches")'
        )
    if taken is None:
        pd.api.extensions.register_dataframe_accessor(name)(FrameMethods)
