"""`open_sidecar`: read a sidecar, a run's folder, without a frame.

Comes in: the path of a sidecar. Goes out: frames of its jobs, answers, failures and runs; a copy.
"""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import msgspec
import pandas as pd
import pyarrow as pa

from nyu_llm_frames._runs.result import jobs_frame
from nyu_llm_frames._runs.stored_answers import StoredAnswers
from nyu_llm_frames._shared.clock import current_clock
from nyu_llm_frames._shared.local_path import local_path
from nyu_llm_frames._sidecar import storage as _storage
from nyu_llm_frames._sidecar.answer_store import SCHEMA, read_answers
from nyu_llm_frames._sidecar.folder import FOLDERS, RunRecord, Sidecar
from nyu_llm_frames._stages.batches.job import Job
from nyu_llm_frames._tables.columns import NULLABLE
from nyu_llm_frames.errors import SidecarError


class OpenSidecar:
    """A sidecar, opened for reading. Made by `open_sidecar`."""

    def __init__(self, path: str | Path) -> None:
        self._sidecar = Sidecar(local_path(path, "The sidecar"), current_clock(), create=False)

    @property
    def path(self) -> Path:
        """The folder."""
        return self._sidecar.path

    def jobs(self) -> pd.DataFrame:
        """Return one row per batch job, the oldest first: every field of its record."""
        return jobs_frame(self._sidecar.jobs().values(), Job.__struct_fields__)

    def runs(self) -> pd.DataFrame:
        """Return one row per run, the oldest first: template, parameters, versions, and `user`.

        The user is the owner of the run's file: in a copy, whoever made the copy.
        """
        runs, who = self._sidecar.runs(), self._sidecar.who_ran
        rows = [msgspec.structs.asdict(run) | {"user": who(run.name)} for run in runs]
        return pd.DataFrame(rows, columns=[*RunRecord.__struct_fields__, "user"])

    def answers(self, raw: bool = False) -> pd.DataFrame:
        """
        Return every stored answer, in the order they were stored.

        Parameters
        ----------
        raw : bool, default False
            Whether to add the column ``raw``: the response as received (bytes).
        """
        columns = [name for name in SCHEMA.names if raw or name != "raw"]
        tables = [
            read_answers(path, columns)
            for path in _storage.parquet_files(self._sidecar.answers_folder)
        ]
        schema = pa.schema([SCHEMA.field(name) for name in columns])
        table = pa.concat_tables(tables) if tables else schema.empty_table()
        frame: pd.DataFrame = table.to_pandas(types_mapper=NULLABLE.get)
        return frame

    def failures(self, prompts: bool = False) -> pd.DataFrame:
        """
        Return the requests without a good answer, one row each, with ``status`` and ``error``.

        Pending ones are not failures, and answers are not held to a schema here: those that do not
        fit it are in the output. ``nyu-llm-frames failures PATH`` groups these by reason.

        Parameters
        ----------
        prompts : bool, default False
            Whether to add the column ``body``: the request, as JSON; NA where prompts are not kept.
        """
        return StoredAnswers(self.path).failures(prompts=prompts)

    def export(self, path: str | Path) -> Path:
        """
        Copy the sidecar to a new folder, to share: a colleague's identical call reads it.

        Parameters
        ----------
        path : str or Path
            A folder that does not exist yet.

        Returns
        -------
        pathlib.Path
            The copy.

        Raises
        ------
        SidecarError
            When the folder exists, or a file of the sidecar is a link.
        """
        target = local_path(path, "The copy").absolute()
        if target.exists():
            raise SidecarError(
                f"{target} already exists. Give the name of a new folder.", path=str(target)
            )
        with self._sidecar.lock.held(), _storage.sidecar_errors(target):
            files = {name: _storage.parquet_files(self.path / name) for name in FOLDERS}
            for path in (*(self.path / name for name in files), *chain(*files.values())):
                if path.is_symlink():
                    raise SidecarError(
                        f"{path} is a link, which may lead out of the sidecar: "
                        "put the file itself there, or remove the link.",
                        path=str(path),
                    )
            copy = Sidecar(target, current_clock())
            for name in FOLDERS:
                for file in files[name]:
                    _storage.copy(file, copy.path / name / file.name)
        return target

    def __reduce__(self) -> tuple[type[OpenSidecar], tuple[Path]]:
        return OpenSidecar, (self.path,)

    def __repr__(self) -> str:
        return f"<sidecar {self.path}: {len(self._sidecar.jobs()):,} batch jobs>"


def open_sidecar(path: str | Path) -> OpenSidecar:
    """
    Open a sidecar, a run's folder, to look inside.

    Parameters
    ----------
    path : str or Path
        The folder.

    Returns
    -------
    OpenSidecar
        With ``.jobs()``, ``.answers(raw=False)``, ``.failures(prompts=False)``, ``.runs()`` and
        ``.export(path)``.

    Raises
    ------
    SidecarError
        When the folder is not a sidecar.
    """
    return OpenSidecar(path)
