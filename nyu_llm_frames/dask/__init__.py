"""Dask frames, past one machine: importing this registers ``ddf.llm``."""

from dask.dataframe.extensions import register_dataframe_accessor

from nyu_llm_frames.dask.dask_methods import DaskMethods

register_dataframe_accessor("llm")(DaskMethods)
