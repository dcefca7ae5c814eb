"""The notebooks: they run from top to bottom, and what is shipped came from a real run.

Comes in: `notebooks/*.ipynb`, without the rest of the repository. Goes out:
executed notebooks. The one cell tagged "parameters" is replaced, so that an echo answers instead
of the model: what the cells say about rows, requests and resuming is true of both.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
NAMES = (
    "01_first_batch",
    "02_code_speeches",
    "03_extract_offenses",
    "04_reproduce",
    "05_larger",
    "06_evaluate",
)
ECHO = 'llm.set_options(gateway=llm.Gateway.local(answers="echo"))'
NEEDED = ("nbclient", "nbformat", "ipykernel", "matplotlib", "starlette", "uvicorn", "platformdirs")

LARGER = ("polars", "dask", "distributed", "duckdb")


def executes_with(names: Sequence[str], extras: str) -> pytest.MarkDecorator:
    """Skip where a package that a notebook needs is not there."""
    return pytest.mark.skipif(
        any(importlib.util.find_spec(name) is None for name in names),
        reason=f'executing notebooks needs pip install "nyu-llm-frames[{extras}]"',
    )


executes = executes_with(NEEDED, "local,plot,notebooks")
every_notebook = pytest.mark.parametrize("name", NAMES)


def stored(name: str) -> dict[str, Any]:
    """Read a notebook as it is in the repository."""
    notebook: dict[str, Any] = json.loads((ROOT / f"notebooks/{name}.ipynb").read_text("utf-8"))
    return notebook


def code_cells(notebook: Any) -> list[Any]:
    """Return the cells that have outputs."""
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def joined(text: str | list[str]) -> str:
    """Return text that a file holds as lines."""
    return text if isinstance(text, str) else "".join(text)


def text_of(cell: Any) -> str:
    """Return all that a cell shows, pictures left out."""
    out = [joined(o["text"]) for o in cell["outputs"] if "text" in o]
    for o in cell["outputs"]:
        out += [joined(v) for kind, v in o.get("data", {}).items() if kind.startswith("text/")]
    return "\n".join(out)


def pictures(notebook: Any) -> int:
    """Count the pictures in the outputs."""
    outputs = [o for cell in code_cells(notebook) for o in cell["outputs"]]
    return sum("image/png" in o.get("data", {}) for o in outputs)


def execute(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Execute a notebook in a folder of its own, answered by the echo."""
    import nbformat
    from nbclient import NotebookClient

    # What is there without the rest of the repository: the notebooks and their data.
    shutil.copytree(ROOT / "notebooks/data", folder / "notebooks/data")
    # The package under test, also where it is not installed; no window, fonts scanned once.
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    monkeypatch.setenv("MPLCONFIGDIR", str(folder.parent / "matplotlib"))
    notebook = nbformat.read(ROOT / f"notebooks/{name}.ipynb", as_version=4)
    for cell in code_cells(notebook):
        cell.outputs, cell.execution_count = [], None
        if "parameters" in cell.metadata.get("tags", []):
            cell.source = ECHO
    where = {"metadata": {"path": str(folder / "notebooks")}}
    NotebookClient(notebook, timeout=120, kernel_name="python3", resources=where).execute()
    return notebook


def cell_with(notebook: Any, source: str) -> str:
    """Return what the only cell with this source shows."""
    (found,) = [cell for cell in code_cells(notebook) if source in joined(cell["source"])]
    return text_of(found)


@executes
def test_first_batch_pays_for_the_edited_row_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notebook = execute("01_first_batch", tmp_path, monkeypatch)
    assert "16 to pay" in cell_with(notebook, "wait=False")
    resumed = cell_with(notebook, "out = df.llm.batch(**ask)")
    assert "uploading" not in resumed
    assert "nothing to pay" in cell_with(notebook, "again = df.llm.batch(**ask)")
    assert "15 already answered; 1 to pay" in cell_with(notebook, "edited.llm.batch")
    assert "cost so far" in cell_with(notebook, "edited.llm.submit")


@executes
def test_speeches_give_choices_and_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notebook = execute("02_code_speeches", tmp_path, monkeypatch)
    assert "36 to pay" in cell_with(notebook, "coded = df.llm.batch")
    assert cell_with(notebook, '"response_error"]].dtypes').count("category") == 2
    assert "nothing to pay" in cell_with(notebook, "run = df.llm.submit")
    assert pictures(notebook) == 2


@executes
def test_offenses_know_the_cost_and_do_not_pay_for_the_trial_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notebook = execute("03_extract_offenses", tmp_path, monkeypatch)
    assert "cost: about $" in cell_with(notebook, "df.llm.estimate")
    assert "Nothing was sent" in cell_with(notebook, "max_cost=")
    assert "5 sent" in cell_with(notebook, "tried =")
    assert "5 already answered" in cell_with(notebook, "out = df.llm.batch")
    assert "0 rows without a good answer" in cell_with(notebook, 'if_exists="fill"')
    assert pictures(notebook) == 1


@executes
def test_colleague_gets_the_same_table_without_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notebook = execute("04_reproduce", tmp_path, monkeypatch)
    assert "this kernel has no network" in cell_with(notebook, "addaudithook")
    assert "12 already answered; nothing to pay" in cell_with(notebook, "reproduced = df.llm")
    assert "11 requests answered, 1 to pay" in cell_with(notebook, "estimate.to_pay")


@executes_with((*NEEDED, *LARGER), "local,polars,dask,notebooks")
def test_larger_tables_find_their_answers_at_every_door_and_pay_at_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notebook = execute("05_larger", tmp_path, monkeypatch)
    ids = cell_with(notebook, "llm.preview(kind")
    assert {ids.count(i) for i in re.findall(r"r-[0-9a-f]{10}", ids)} == {2 * 5}  # text and HTML
    paid = cell_with(notebook, "coded = frame.llm.batch")
    assert "36 to pay" in paid
    for call, rows in (
        ("answered = llm.batch(democrats", 18),
        ("from_arrow = llm.batch", 36),
        ("from_pandas = df.llm.batch", 36),
        ("llm.batch_file", 36),
        ("out = ddf.llm.batch", 36),
    ):
        shown = cell_with(notebook, call)
        assert f"{rows} already answered; nothing to pay" in shown
        assert f"done: {rows} rows ({rows} ok); cost $0" in shown
        assert "uploading" not in shown
    assert "nothing to pay" in cell_with(notebook, "ddf.llm.estimate")
    assert cell_with(notebook, "jobs()").count("completed") == 2  # one job; text and HTML


@executes
def test_a_study_goes_from_the_sample_to_the_corrected_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notebook = execute("06_evaluate", tmp_path, monkeypatch)
    assert "600 to pay" in cell_with(notebook, '"sidecar": "evaluate.llm"')
    assert "of 260 units" in cell_with(notebook, "def fill_in")
    assert "of which 200 coded" in cell_with(notebook, "report = df.llm.evaluate")
    assert "60 to pay" in cell_with(notebook, "three_choices = {")
    assert "0.323" in cell_with(notebook, "share = df.llm.correct")  # the truth, in the data
    assert "60 already answered; 540 to pay" in cell_with(notebook, "worse = df.llm.correct")
    assert pictures(notebook) == 4


@every_notebook
def test_one_tagged_cell_names_the_gateway(name: str) -> None:
    cells = code_cells(stored(name))
    tagged = [cell for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    assert [joined(cell["source"]) for cell in tagged] == ['llm.set_options(gateway="local")']


@every_notebook
def test_shipped_outputs_come_from_one_run_from_the_top(name: str) -> None:
    cells = code_cells(stored(name))
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert not any(o["output_type"] == "error" for cell in cells for o in cell["outputs"])


@pytest.mark.parametrize("name", sorted({*NAMES} - {"03_extract_offenses"}))  # it shows cut answers
def test_a_limit_of_tokens_says_what_thinking_may_take(name: str) -> None:
    source = "".join(joined(cell["source"]) for cell in code_cells(stored(name)))
    assert "max_tokens" not in source or "thinking" in source


@every_notebook
def test_shipped_outputs_come_from_the_model(name: str) -> None:
    shown = "\n".join(map(text_of, code_cells(stored(name))))
    assert "submitted as batch job" in shown
    assert "echo" not in shown


@every_notebook
def test_shipped_notebook_names_no_place_of_the_machine_it_ran_on(name: str) -> None:
    text = (ROOT / f"notebooks/{name}.ipynb").read_text("utf-8")
    assert len(text) < 400_000
    shown = "\n".join(map(text_of, code_cells(stored(name))))
    places = set(re.findall(r"(?<![\w/.<:])/[a-zA-Z]\w*/\w+|[A-Z]:\\\\?\w+", shown))
    assert places <= {"/home/you"}
    assert "object at 0x" not in shown
