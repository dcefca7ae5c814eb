"""Build the matrices of a formula, with the model's labels and with the hand codes.

Comes in: a frame, a formula and the column of codes for each of the model's columns. Goes out: a
`Design`. A missing answer is a separate class: no row is dropped.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from nyu_llm_frames._shared.wording import count
from nyu_llm_frames.errors import CodesError, ConfigurationError, MissingValueError
from nyu_llm_frames.research.arithmetic import Bools, Floats
from nyu_llm_frames.research.coding import MISSING
from nyu_llm_frames.research.labels import UNANSWERED, Column, as_numbers, encode, values_of

_QUOTED = re.compile("`([^`]*)`")  # a name that is none in Python
Outcomes: TypeAlias = dict[str, tuple[Floats, Floats]]
"""The model's (N) and the human's (n) values of one outcome, or for shares of each class."""


@dataclass(frozen=True, slots=True)
class Design:
    """The same terms with the model's labels of N rows and with the hand codes of n."""

    terms: tuple[str, ...]
    model_x: Floats  # N x p
    human_x: Floats  # n x p
    outcomes: Outcomes
    usable: Bools  # rows with a model part that counts
    counts: dict[tuple[str, str], int]  # coded rows of each class of a column
    shares: bool  # whether the outcomes are the classes of `label ~ 1`
    notes: list[str]


@dataclass(slots=True)
class _Columns:
    """The columns of a formula as they are read: a frame of N rows, and one of n."""

    model: pd.DataFrame
    human: pd.DataFrame
    usable: Bools
    counts: dict[tuple[str, str], int] = field(default_factory=dict)
    classes: dict[str, list[str]] = field(default_factory=dict)  # coded ones, of columns of labels
    notes: list[str] = field(default_factory=list)

    def add(self, name: str, model: Any, human: Any) -> None:
        self.model[name], self.human[name] = model, human


def build(
    frame: pd.DataFrame, text: str, truth: Mapping[str, str], coded: Bools, family: str
) -> Design:
    """Make the matrices of a formula."""
    lhs, rhs = _formula(text)
    left, right = (_variables(side, frame) for side in (lhs, rhs))
    for name in truth:
        if name not in left | right:
            raise ConfigurationError(
                f"truth= has codes for {name!r}, which the formula {text!r} does not name."
            )
    columns = _Columns(
        pd.DataFrame(index=pd.RangeIndex(len(frame))),
        pd.DataFrame(index=pd.RangeIndex(int(coded.sum()))),
        np.ones(len(frame), dtype=bool),
    )
    for name in sorted(left | right):
        values = values_of(frame, name, "formula")
        if name not in truth:
            own = _covariate(values)
            columns.add(name, own, own[coded])
            continue
        codes = values_of(frame, truth[name], "truth")[coded]
        left_out = int(values.isna().sum())
        if left_out:
            columns.notes.append(f"{count(left_out, 'row')} without an answer in {name}")
        numbers = is_numeric_dtype(values.dtype) or _is_bool(values)
        (_add_numbers if numbers else _add_classes)(columns, values, codes, name in right)
    terms, model_x, human_x = _matrices(rhs, columns, text)
    outcome = str(lhs)
    alone = outcome.strip("`")
    shares = False
    if alone in columns.classes:
        shares = str(rhs) == "1" and family == "ols"
        outcomes = _class_outcomes(columns, alone, shares)
    else:
        outcomes = _number_outcome(columns, lhs, text, family)
    return Design(
        terms, model_x, human_x, outcomes, columns.usable, columns.counts, shares, columns.notes
    )


def _formula(text: str) -> tuple[Any, Any]:
    from formulaic import Formula

    if not isinstance(text, str):
        kind = type(text).__name__
        raise ConfigurationError(f"The formula must be text, as 'label ~ age', not a {kind}.")
    try:
        formula = Formula(text)
        lhs, rhs = formula.lhs, formula.rhs
    except AttributeError:
        raise ConfigurationError(f"The formula {text!r} has no outcome: 'label ~ age'.") from None
    except Exception as e:
        why = next(iter(str(e).splitlines()), type(e).__name__)  # below it, escapes for terminals
        raise ConfigurationError(f"The formula {text!r} cannot be read: {why}") from None
    if isinstance(lhs, tuple) or isinstance(rhs, tuple):
        raise ConfigurationError(f"The formula {text!r} has several parts; write it without |.")
    if not len(rhs):
        raise ConfigurationError(f"The formula {text!r} has no term: a mean is 'label ~ 1'.")
    return lhs, rhs


def _variables(side: Any, frame: pd.DataFrame) -> set[str]:
    """Return the columns that one side of a formula names.

    formulaic's own list lacks those in calls that learn from the data, as ``scale(age)``, and
    before 1.2.2 there is none where a name in such a call stands in backticks.
    """
    found: set[str] = set()
    with suppress(SyntaxError):
        found.update(map(str, side.required_variables))
    for factor in (factor for term in side for factor in term.factors):
        if factor.eval_method == factor.EvalMethod.LOOKUP:
            found.add(factor.expr)
        if factor.eval_method == factor.EvalMethod.PYTHON:
            try:
                tree = ast.parse(_QUOTED.sub("_", factor.expr))
            except SyntaxError:
                continue
            named = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
            named.update(_QUOTED.findall(factor.expr))
            found.update(named.intersection(frame.columns))
    return found


# --- the columns of the formula ---------------------------------------------------------------
def _is_bool(values: Column) -> bool:
    return is_bool_dtype(values.dtype) or (
        values.dtype == object and all(isinstance(v, bool | np.bool_) for v in values.dropna())
    )


def _numbers(values: Column) -> Floats:
    """Return numbers, or true and false as 1 and 0."""
    if is_numeric_dtype(values.dtype):
        return values.to_numpy(dtype=np.float64, na_value=np.nan, copy=True)
    words = {"true": 1.0, "false": 0.0}
    cells = [words.get(v.casefold(), v) if isinstance(v, str) else v for v in values]
    try:
        return as_numbers(pd.Series(cells, dtype=object))
    except CodesError:
        wrong = next(v for v in cells if isinstance(v, str))
        raise CodesError(
            f"Column {values.name!r} must hold numbers, as the model's column does, not {wrong!r}."
        ) from None


def _add_numbers(columns: _Columns, answers: Column, codes: Column, covariate: bool) -> None:
    """Add one of the model's columns of numbers, and its codes."""
    name, missing = str(answers.name), answers.isna().to_numpy(dtype=bool)
    given, known = _numbers(answers), _numbers(codes)
    answered = given[~missing]
    two = bool(np.isin(np.concatenate([answered, known]), (0.0, 1.0)).all())
    if two:
        columns.counts |= {(name, str(v)): int((known == v).sum()) for v in (0, 1)}
    if missing.any():
        # An outcome of 0 and 1: without an answer it is not of class 1.
        middle = len(answered) // 2
        filler = 0.0 if two or not len(answered) else np.sort(answered)[middle]
        given = np.where(missing, filler, given)
        if covariate or not two:
            columns.usable &= ~missing
    columns.add(name, given, known)


def _add_classes(columns: _Columns, answers: Column, codes: Column, covariate: bool) -> None:
    """Add one of the model's columns of classes, and its codes."""
    name = str(answers.name)
    both = encode([answers, codes])
    first, second = both.codes
    counts = np.bincount(second[second >= 0], minlength=len(both.labels))
    used = [c for i, c in enumerate(both.labels) if counts[i] or (first == i).any()]
    times = {c: int(n) for c, n in zip(both.labels, counts, strict=True) if c in used}
    columns.counts |= {(name, c): n for c, n in times.items()}
    columns.classes[name] = coded = [c for c, n in times.items() if n]
    texts = np.array([*both.labels, UNANSWERED], dtype=object)
    cells = texts[first]
    categories = [*used, *([UNANSWERED] if (first < 0).any() else [])]
    if covariate:
        never = sorted(set(used) - set(coded))
        if never:
            columns.notes.append(
                f"{', '.join(never)} of {name} has no coded row: rows with it count by no label"
            )
        known = np.isin(cells, coded)
        columns.usable &= known
        cells, categories = np.where(known, cells, coded[0] if coded else ""), coded
    columns.add(
        name,
        pd.Categorical(cells, categories=categories),
        pd.Categorical(texts[second], categories=categories),
    )


def _covariate(values: Column) -> Any:
    """Return a column that formulaic takes: numbers, or categories with one for NA."""
    missing = values.isna().to_numpy(dtype=bool)
    if is_numeric_dtype(values.dtype) and not (_is_bool(values) and missing.any()):
        if missing.any():
            row = values.index[int(np.argmax(missing))]
            raise MissingValueError(
                f"Column {values.name!r} of the formula has "
                f"{count(int(missing.sum()), 'missing number')} (first at row {row!r}). Fill them, "
                "or leave those rows out of the frame before it is sampled.",
                columns={str(values.name): int(missing.sum())},
                rows=(row,),
            )
        return values.to_numpy(dtype=np.float64)
    if values.dtype.kind in "mM":
        return values.reset_index(drop=True)
    found = encode([values])
    codes = found.codes[0]
    used = [c for i, c in enumerate(found.labels) if (codes == i).any()]
    texts = np.array([*found.labels, MISSING], dtype=object)[codes]
    return pd.Categorical(texts, categories=[*used, *([MISSING] if missing.any() else [])])


# --- matrices ---------------------------------------------------------------------------------
def _class_outcomes(columns: _Columns, name: str, shares: bool) -> Outcomes:
    """Return 1 for the rows of a class: of each class for shares, else of the second of two."""
    levels = columns.classes[name]
    if shares:
        levels = list(columns.model[name].cat.categories)
    elif len(levels) == 2:
        levels = levels[1:]
        columns.notes.append(f"outcome: {name} is {levels[0]!r}")
    else:
        raise ConfigurationError(
            f"{name!r} has {len(levels):,} class{'' if len(levels) == 1 else 'es'}: an outcome "
            f"with covariates has two. Write I({name} == {levels[-1]!r}) ~ ..."
        )
    model, human = (np.asarray(f[name], dtype=object) for f in (columns.model, columns.human))
    return {c: ((model == c).astype(np.float64), (human == c).astype(np.float64)) for c in levels}


def _number_outcome(columns: _Columns, lhs: Any, text: str, family: str) -> Outcomes:
    names, model, human = _matrices(lhs, columns, text)
    if len(names) != 1:
        raise ConfigurationError(
            f"The outcome {str(lhs)!r} has {len(names)} columns: {', '.join(names[:5])}. Write "
            f"I({lhs} == ...) ~ ... for one of them."
        )
    both = np.concatenate([model[columns.usable, 0], human[:, 0]])
    if family == "logit" and (both.min() < 0 or both.max() > 1):
        raise ConfigurationError(
            f"The outcome {str(lhs)!r} of a logit is 0 or 1; it goes from {both.min():g} to "
            f"{both.max():g}."
        )
    return {names[0]: (model[:, 0], human[:, 0])}


def _matrices(side: Any, columns: _Columns, text: str) -> tuple[tuple[str, ...], Floats, Floats]:
    """Return the terms of one side of a formula, and their values in both frames."""
    from formulaic.errors import DataMismatchWarning

    try:
        # What has no value is named below; a code that is no answer would become a row of zeros.
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("error", DataMismatchWarning)
            first = side.get_model_matrix(columns.model, output="numpy", na_action="ignore")
            spec = first.model_spec
            second = spec.get_model_matrix(columns.human, output="numpy", na_action="ignore")
    except DataMismatchWarning as e:
        raise CodesError(
            f"The formula {text!r} has classes in the hand codes that the model never gave: "
            f"{str(e).partition('): ')[2].partition('. ')[0]}. Make the columns categorical."
        ) from None
    except Exception as e:
        raise ConfigurationError(f"The formula {text!r} cannot be evaluated: {e}") from e
    model, human = (np.asarray(m, dtype=np.float64) for m in (first, second))
    names = tuple(map(str, spec.column_names))
    if len(model) != len(columns.model) or len(human) != len(columns.human):
        raise ConfigurationError(f"The formula {text!r} leaves out rows.")
    bad = ~np.isfinite(model)
    if not bad.any():
        bad = ~np.isfinite(human)
    if bad.any():
        at = int(np.argmax(bad.any(axis=0)))
        raise ConfigurationError(
            f"In the formula {text!r}, {names[at]!r} is missing or infinite in "
            f"{count(int(bad[:, at].sum()), 'row')}, as the logarithm of 0 is."
        )
    return names, model, human
