"""Every error and warning of the package, for the person who reads it at midnight.

Comes in: what happened, to which input. Goes out: a message that ends with how to fix it, and the
same facts as attributes. Each class inherits the builtin it is a kind of, and each one pickles.

    LLMFramesError
    ├── ConfigurationError          ValueError       a key, bucket, option or argument
    ├── NotPicklableError           TypeError        an object bound to its process
    ├── TemplateError               ValueError       syntax, or a failure at one row
    │   └── MissingColumnError      KeyError         a name that no column has
    ├── MissingValueError           ValueError       NA that the prompt prints or compares
    ├── ColumnExistsError           ValueError       the output column already exists
    ├── RequestError                ValueError       a request that would fail or vanish
    ├── SchemaError                 ValueError       a schema that cannot be expressed
    ├── CodesError                  ValueError       hand codes that do not fit the rows
    ├── BudgetError                 RuntimeError     above max_cost, or the budget is used up
    ├── SidecarError                OSError          the folder, a file in it, its lock
    │   ├── SidecarVersionError     ...              written by a newer release
    │   ├── SidecarDamagedError     ...              a file that cannot be read
    │   └── SidecarLockedError      TimeoutError     another process holds the lock
    ├── GatewayError                RuntimeError     the gateway refused or answered nonsense
    │   ├── AuthenticationError     PermissionError  401 and 403
    │   └── GatewayUnavailableError ConnectionError  not reached, or 5xx after all retries
    ├── UncertainSubmissionError    RuntimeError     a job may or may not exist
    ├── BatchJobFailedError         RuntimeError     a job ended without any answer
    ├── RunTimeoutError             TimeoutError     `timeout=` expired; the jobs continue
    │   └── WorkersLostError        ...              Dask has no worker left
    ├── PartitionError              RuntimeError     a partition of a Dask frame ends its workers
    │   └── PartitionChangedError   ...              its rows differ from those that were sent
    └── PartialResultError          RuntimeError     some rows have no good answer

    PartialResultWarning            UserWarning      the same, as the default warning
    CodesWarning                    UserWarning      coders differ, or their file is open
    TruncationWarning               UserWarning      max_tokens that thinking may use up
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import pandas as pd

_NONE: Mapping[Any, Any] = MappingProxyType({})


class ResumableRun(Protocol):
    """What an error's `run` can do, whether it is a `Run` or works on a sidecar alone."""

    def poll(self) -> object: ...
    def wait(self, timeout: float | None = None) -> object: ...
    def retry(self) -> object: ...
    def cancel(self) -> list[str]: ...
    def resolve(self, adopt: str | None = None, resubmit: bool = False) -> object: ...


class LLMFramesError(Exception):
    """Base of all errors of this package.

    Context travels as attributes, which each class declares with their defaults. Constructors take
    the message first and these by keyword, so that every subclass pickles.
    """

    def __init__(self, message: str = "", **context: Any) -> None:
        super().__init__(message)
        for name, value in context.items():
            if not hasattr(type(self), name):
                raise TypeError(f"{type(self).__name__} has no {name!r}.")
            if isinstance(value, Mapping):
                value = dict(value)
            setattr(self, name, tuple(value) if isinstance(value, list) else value)

    @property
    def message(self) -> str:
        """The text, as printed."""
        return str(self.args[0]) if self.args else ""

    def __str__(self) -> str:
        return self.message  # KeyError would print its repr, OSError its errno

    def __reduce__(self) -> tuple[Any, ...]:
        # A run and a frame stay in their process. Without this method Dask would not use __init__.
        state = {k: v for k, v in self.__dict__.items() if k not in ("run", "frame")}
        return type(self), self.args, state


class ConfigurationError(LLMFramesError, ValueError):
    """A credential, option or argument is missing or invalid."""


class NotPicklableError(LLMFramesError, TypeError):
    """An object that cannot leave its process, because it holds a client, threads or a lock."""


class TemplateError(LLMFramesError, ValueError):
    """A template does not parse, or fails at one row.

    Attributes
    ----------
    row : Hashable or None
        Index label of the row at which rendering failed.
    position : int or None
        Position of that row, counted from 0.
    line : int or None
        Line of the template, counted from 1.
    """

    row: Hashable = None
    position: int | None = None
    line: int | None = None


class MissingColumnError(TemplateError, KeyError):
    """A template or an argument uses a name that no column has.

    Attributes
    ----------
    column : Hashable
        The missing name.
    available : tuple of Hashable
        The existing columns, the nearest first.
    """

    column: Hashable = ""
    available: Sequence[Hashable] = ()


class MissingValueError(LLMFramesError, ValueError):
    """The prompt prints missing values, or compares them.

    Attributes
    ----------
    columns : dict of Hashable to int
        Number of missing values per column.
    rows : tuple of Hashable
        Index labels of the first rows affected.
    """

    columns: Mapping[Hashable, int] = _NONE
    rows: Sequence[Hashable] = ()


class ColumnExistsError(LLMFramesError, ValueError):
    """The frame already has output columns: `columns`."""

    columns: Sequence[str] = ()


class RequestError(LLMFramesError, ValueError):
    """A request that the gateway or the model would refuse, change or drop.

    Attributes
    ----------
    row : Hashable or None
        Index label of the first row affected.
    count : int
        Number of rows affected.
    """

    row: Hashable = None
    count: int = 1


class SchemaError(LLMFramesError, ValueError):
    """A schema that cannot be sent or turned into columns; `path` says where (``$.kind``)."""

    path: str = "$"


class CodesError(LLMFramesError, ValueError):
    """Hand codes that cannot be read, joined or compared reliably.

    Attributes
    ----------
    file, row, unit : str, Hashable, str
        File name, row (in a frame: the index label) and unit affected.
    """

    file: str = ""
    row: Hashable = None
    unit: str = ""


class SidecarError(LLMFramesError, OSError):
    """The sidecar folder, its attribute `path`, cannot be read or written."""

    path: str = ""


class SidecarVersionError(SidecarError):
    """The sidecar was written in a newer format."""


class SidecarDamagedError(SidecarError):
    """A file of the sidecar cannot be read."""


class SidecarLockedError(SidecarError, TimeoutError):
    """Another process holds the sidecar's lock.

    Attributes
    ----------
    host, pid, since : str, int, str
        Its holder, and since when (UTC, ISO 8601).
    """

    host: str = ""
    pid: int = 0
    since: str = ""


class GatewayError(LLMFramesError, RuntimeError):
    """The gateway refused a call, or the response is not a gateway's.

    Attributes
    ----------
    status_code : int or None
        HTTP status.
    body : str
        The start of the response.
    """

    status_code: int | None = None
    body: str = ""


class AuthenticationError(GatewayError, PermissionError):
    """401 or 403: the key is wrong, or lacks a permission."""


class GatewayUnavailableError(GatewayError, ConnectionError):
    """The gateway could not be reached, is busy, or answered with something else.

    Attributes
    ----------
    connected : bool
        False when no connection was made, so nothing can have happened there.
    retry_after_s : float or None
        Seconds that the gateway requested.
    """

    connected: bool = True
    retry_after_s: float | None = None


class _CarriesRun(LLMFramesError):
    """An error that carries the `Run`; pickling drops the run.

    For a file it is a `StoredRun`, which works on the sidecar alone: ``poll``, ``wait``, ``retry``,
    ``cancel``, ``resolve``, ``failures``.
    """

    run: ResumableRun | None = None


class BudgetError(_CarriesRun, RuntimeError):
    """The cost may be above ``max_cost``, no price is known, or the gateway's budget is used up.

    Attributes
    ----------
    max_cost, upper : float or None
        US dollars.
    status_code : int or None
        412 where the gateway reports it: the refused call made nothing, and everything before it
        is kept.
    run : Run, StoredRun or None
        Set where the gateway reports it.
    """

    max_cost: float | None = None
    upper: float | None = None
    status_code: int | None = None


class UncertainSubmissionError(_CarriesRun, RuntimeError):
    """A submission may or may not have created a job; the job list cannot settle it.

    Nothing more is submitted from this sidecar until you settle it with
    ``error.run.resolve(adopt="<batch id>")`` or ``error.run.resolve(resubmit=True)``.

    Attributes
    ----------
    run : Run, StoredRun or None
    job : str
        Name of the job in the sidecar.
    input_file_id : str
        Look for it in the provider's own list of jobs.
    """

    job: str = ""
    input_file_id: str = ""


class BatchJobFailedError(_CarriesRun, RuntimeError):
    """A batch job ended without a single answer.

    Attributes
    ----------
    run : Run, StoredRun or None
    jobs : dict of str to str
        The gateway's message per batch job id.
    """

    jobs: Mapping[str, str] = _NONE


class RunTimeoutError(_CarriesRun, TimeoutError):
    """``timeout=`` expired; the batch jobs continue at the gateway."""


class WorkersLostError(RunTimeoutError):
    """No worker of the Dask cluster is left, or none came; what was recorded is kept."""


class PartitionError(LLMFramesError, RuntimeError):
    """A partition of a Dask frame cannot be rendered.

    Attributes
    ----------
    partition : int or None
        Its number, from 0, in the frame that the call was made on.
    """

    partition: int | None = None


class PartitionChangedError(PartitionError):
    """The rows of a Dask partition differ from those that were sent.

    Attributes
    ----------
    count, rows : int
        Rows that were never sent, and all rows of the partition.
    row : Hashable or None
        Index label of the first of them.
    """

    count: int = 0
    rows: int = 0
    row: Hashable = None


class PartialResultError(_CarriesRun, RuntimeError):
    """Some rows have no good answer and ``on_error="raise"`` is set.

    Attributes
    ----------
    run : Run, StoredRun or None
    frame : pandas.DataFrame or None
        The joined frame, with all answers so far.
    counts : dict of str to int
        Rows per status.
    """

    frame: pd.DataFrame | None = None
    counts: Mapping[str, int] = _NONE


class PartialResultWarning(UserWarning):
    """Some rows have no good answer; the reasons are in ``{output}_error``."""


class TruncationWarning(UserWarning):
    """The model thinks, and `max_tokens` counts thinking: answers may be cut or empty."""


class CodesWarning(UserWarning):
    """Coders differ, or one of their files is missing or open in a spreadsheet program."""
