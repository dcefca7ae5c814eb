"""Polars: importing this registers ``df.llm`` on `polars.DataFrame` and `polars.LazyFrame`.

The same methods, arguments, errors and columns as in pandas: text is String, choices and statuses
are Enum in their declared order, then Int64, Boolean, Float64, List and Struct. The same data makes
the same requests as in pandas, so nothing that was paid for there is paid for again. A NaN counts
as missing, as in pandas.

Polars frames have no row labels: ``index`` in a template is the row's number from 0. A LazyFrame is
collected when a method is called, because nothing that costs money may hide in a query plan:
`preview` collects the first rows, all other methods the whole frame. `preview` and `trial` then
return a DataFrame, `batch` a LazyFrame. The record that pandas keeps in ``attrs["trial"]`` is only
printed.

Hand codes and statistics (`to_code`, `from_codes`, `evaluate`, `agreement`, `correct`) work as in
pandas, with the same units. `from_codes` returns the same kind of frame; designs and results hold
pandas frames. An Enum counts as nominal unless ``kind="ordinal"``.

Needs ``pip install "nyu-llm-frames[polars]"``.

>>> import polars as pl
>>> import nyu_llm_frames.polars
>>> df = pl.DataFrame({"x": [1]})
>>> df.llm.preview("What is {{ x }} + 1?")["messages"].to_list()
[[{'role': 'user', 'content': 'What is 1 + 1?'}]]
"""

from nyu_llm_frames._api.register import claim
from nyu_llm_frames.errors import ConfigurationError

try:
    claim("polars")
except ImportError as e:
    raise ConfigurationError(
        f'Polars cannot be imported ({e}): pip install "nyu-llm-frames[polars]".'
    ) from None
