"""Options and environment: the one place that reads either.

Comes in: keyword arguments of `set_options` and the process environment. Goes out: a frozen
`Options` and a frozen `Environment`, handed down by value.
"""

from __future__ import annotations

import inspect
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from nyu_llm_frames.errors import ConfigurationError

if TYPE_CHECKING:
    from nyu_llm_frames._shared.progress import Progress

NYU_BASE_URL = "https://ai-gateway.apps.cloud.rt.nyu.edu/v1/"
NYU_PROVIDER = "@vertexai"
NYU_CONTACT = "genai-research-support@nyu.edu"


class Connectable(Protocol):
    """What the option `gateway` takes: a `Gateway`, or anything that connects like one."""

    def connect(self) -> object: ...


def no_gateway(given: object) -> str:
    """Explain what to write in place of a wrong `gateway`, without an address's password."""
    text = 'gateway must be a Gateway or the word "local"'
    if isinstance(given, str) and given.strip().casefold() == "nyu":
        return f"{text}. NYU's gateway is the default; leave gateway= out."
    if isinstance(given, str) and "://" in given:
        return f"{text}, not an address: write gateway=llm.Gateway(base_url=...)."
    return f"{text}, not {given!r}."


@dataclass(frozen=True, slots=True)
class Options:
    """Settings of a call. See `set_options` for their meaning and units."""

    gateway: Connectable | str | None = None
    sidecar: str | Path | None = None
    progress: bool | Callable[[Progress], None] = True
    max_cost: float | None = None
    keep_prompts: bool = True
    poll_interval_s: float = 5
    max_poll_interval_s: float = 300
    submit_settle_s: float = 60
    output_settle_s: float = 60
    max_requests_per_file: int = 50_000
    max_bytes_per_file: int = 90_000_000
    images_root: str | Path | None = None
    shared: bool = False

    def __post_init__(self) -> None:
        for name in (
            *("max_cost", "poll_interval_s", "max_poll_interval_s", "submit_settle_s"),
            *("output_settle_s", "max_requests_per_file", "max_bytes_per_file"),
        ):
            value = getattr(self, name)
            if value is None and name == "max_cost":
                continue
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not 0 < value < float("inf"):
                raise ConfigurationError(f"{name} must be a number above 0, not {value!r}.")
            if name.endswith("_per_file"):
                if value != int(value):
                    raise ConfigurationError(f"{name} must be a whole number, not {value!r}.")
                object.__setattr__(self, name, int(value))
        if not (
            self.gateway is None or self.gateway == "local" or hasattr(self.gateway, "connect")
        ):
            raise ConfigurationError(no_gateway(self.gateway))
        for name, fits, what in (
            ("sidecar", self.sidecar is None or isinstance(self.sidecar, str | Path),
             "the path of a folder"),
            ("progress", isinstance(self.progress, bool) or callable(self.progress),
             "True, False or a callable that takes a record"),
            ("keep_prompts", isinstance(self.keep_prompts, bool), "a bool"),
            ("shared", isinstance(self.shared, bool), "a bool"),
        ):  # fmt: skip
            if not fits:
                raise ConfigurationError(f"{name} must be {what}, not {getattr(self, name)!r}.")
        if self.images_root is not None:
            root = self.images_root
            if not (isinstance(root, str | Path) and Path(root).expanduser().is_dir()):
                raise ConfigurationError(f"images_root must be a folder that exists, not {root!r}.")
            # Against the working directory of now, not of a later call.
            object.__setattr__(self, "images_root", Path(root).expanduser().absolute())


class _Layers:
    """Options that were set and not yet undone; the latest value applies."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._layers: list[dict[str, Any]] = []
        self.merged = Options()

    def add(self, layer: dict[str, Any]) -> None:
        with self._lock:
            self.merged = replace(self.merged, **layer)
            self._layers.append(layer)

    def remove(self, layer: dict[str, Any]) -> None:
        with self._lock:
            self._layers = [one for one in self._layers if one is not layer]
            self.merged = Options(**{k: v for one in self._layers for k, v in one.items()})


_layers = _Layers()


def current() -> Options:
    """Return the options in force."""
    return _layers.merged


class set_options:
    """Set options for the session, or for a ``with`` block.

    They apply to all threads. A block undoes what it set, and nothing else, so blocks of two
    threads may overlap; where both set the same option, the later value applies in both.

    Parameters
    ----------
    gateway : Gateway or "local", optional
        Used where a call gives none.
    sidecar : str or Path, optional
        The run's folder, its sidecar, which keeps jobs and answers; default ``llm_sidecar`` in the
        working directory.
    progress : bool or callable, default True
        ``False`` prints nothing, and logs a warning when the gateway is not reached. A callable
        receives a frozen `Progress` record at every change.
    max_cost : float, optional
        US dollars that no call may exceed, unless it gives its own ``max_cost``.
    keep_prompts : bool, default True
        Whether the sidecar keeps request bodies after their job is over.
    poll_interval_s, max_poll_interval_s : float, default 5 and 300
        Seconds between polls: the first pause and the longest.
    submit_settle_s : float, default 60
        Seconds after an uncertain submission before a job that is not listed counts as never made.
    output_settle_s : float, default 60
        Seconds during which an incomplete output is read again.
    max_requests_per_file, max_bytes_per_file : int, default 50_000 and 90_000_000
        Limits of one input file.
    images_root : str or Path, optional
        The only folder from which files named in image columns are read, symbolic links resolved.
        For frames that came from somebody else.
    shared : bool, default False
        Whether a new sidecar is open to the group of its folder (modes 2770 and 660), so that a
        lab can share it and continue each other's runs. An existing sidecar keeps its modes.

    Raises
    ------
    ConfigurationError
        For an unknown name, or a number that is not above 0.

    Examples
    --------
    >>> import nyu_llm_frames as llm
    >>> with llm.set_options(poll_interval_s=30, sidecar="reviews.llm"):
    ...     pass
    """

    # As `help` and editors show it.
    __signature__ = inspect.Signature(
        [
            inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default)
            for f in fields(Options)
        ]
    )

    def __init__(self, *unnamed: object, **options: Any) -> None:
        known = [f.name for f in fields(Options)]
        if unnamed:
            raise TypeError(f"Options are given by name: {known[0]}=..., {known[1]}=...")
        for name in options:
            if name not in known:
                near = get_close_matches(name, known, 1)
                hint = f" Did you mean {near[0]}=?" if near else ""
                raise ConfigurationError(
                    f"There is no option {name!r}.{hint} Options: {', '.join(known)}."
                )
        self._given = options
        _layers.add(options)

    def __repr__(self) -> str:
        # The last line of many notebook cells; a Gateway's own repr hides its key.
        return f"set_options({', '.join(f'{k}={v!r}' for k, v in self._given.items())})"

    def __enter__(self) -> None:
        return None

    def __exit__(self, *exc: object) -> None:
        _layers.remove(self._given)


@dataclass(frozen=True, slots=True, repr=False)
class Environment:
    """Gateway settings from the process environment. Holds a key, so it has no repr."""

    api_key: str | None
    base_url: str | None
    provider: str | None
    bucket: str | None


VARIABLES = {
    "api_key": "PORTKEY_API_KEY",
    "base_url": "PORTKEY_BASE_URL",
    "provider": "PORTKEY_PROVIDER",
    "bucket": "NYU_LLM_BUCKET",
}
"""The environment variable of each gateway setting."""


def read_environment() -> Environment:
    """Read the variables that NYU's users set."""
    get = os.environ.get
    found = {name: (get(variable) or "").strip() for name, variable in VARIABLES.items()}
    return Environment(**{name: value or None for name, value in found.items()})
