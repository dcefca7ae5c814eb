"""Build the matrices of a formula, with the model's labels and with the hand codes.

Comes in: a frame, a formula and the column of codes for each of the model's columns. Goes out: a
`Design`. A missing answer is a separate class: no row is dropped.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from nyu_llm_frames._shared.wording import count
from nyu_llm_frames.errors import CodesError, ConfigurationError, MissingValueError
from nyu_llm_frames.research.coding import MISSING, Bools
from nyu_llm_frames.research.labels import UNANSWERED, column, encode

Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, slots=True)
class Design:
    """
    The same terms with the model's labels and with the hand codes.

    Attributes
    ----------
    terms : tuple of str
    model_x, human_x : numpy.ndarray
        N x p and n x p.
    outcomes : dict of str to (numpy.ndarray, numpy.ndarray)
        For each outcome the model's (N) and the human's (n) values: one, or for shares one for
        each class.
    usable : numpy.ndarray of bool
        Rows with a model part that counts.
    counts : dict of str to int
        Coded rows of each class.
    shares : bool
        Whether the outcomes are the classes of ``label ~ 1``.
    notes : tuple of str
    """

    terms: tuple[str, ...]
    model_x: Floats
    human_x: Floats
    outcomes: dict[str, tuple[Floats, Floats]]
    usable: Bools
    counts: dict[str, int]
    shares: bool
    notes: tuple[str, ...]


def _formula(text: str) -> Any:
    try:
        from formulaic import Formula
    except ImportError:
        raise ConfigurationError(
            'df.llm.correct needs formulaic and scipy: pip install "nyu-llm-frames[research]"'
        ) from None
    try:
        formula = Formula(text)
        return formula.lhs, formula.rhs
    except AttributeError:
        raise ConfigurationError(f"The formula {text!r} has no outcome: 'label ~ age'.") from None
    except Exception as e:
        raise ConfigurationError(f"The formula {text!r} cannot be read: {e}") from e


def _is_numeric(values: pd.Series[Any]) -> bool:
    return pd.api.types.is_numeric_dtype(values.dtype)


def _is_bool(values: pd.Series[Any]) -> bool:
    return bool(pd.api.types.is_bool_dtype(values.dtype)) or (
        values.dtype == object and all(isinstance(v, bool | np.bool_) for v in values.dropna())
    )


def _numbers(values: pd.Series[Any]) -> Floats:
    """Return numbers, or true and false as 1 and 0."""
    if _is_numeric(values):
        return values.to_numpy(dtype=np.float64, na_value=np.nan, copy=True)
    words = {"true": 1.0, "false": 0.0}
    cells = [words.get(v.casefold(), v) if isinstance(v, str) else v for v in values]
    try:
        found = pd.to_numeric(pd.Series(cells, dtype=object).where(values.notna().to_numpy(), None))
    except (ValueError, TypeError):
        wrong = next(v for v in cells if isinstance(v, str))
        raise CodesError(
            f"Column {values.name!r} must hold numbers, as the model's column does, not {wrong!r}."
        ) from None
    return np.asarray(found, dtype=np.float64)


def build(
    frame: pd.DataFrame, text: str, truth: Mapping[str, str], coded: Bools, family: str
) -> Design:
    """
    Make the matrices of a formula.

    Raises
    ------
    ConfigurationError
        A formula that cannot be read, or does not name the model's columns.
    MissingValueError
        Missing numbers in another column.
    """
    lhs, rhs = _formula(text)
    left, right = ({str(v) for v in side.required_variables} for side in (lhs, rhs))
    for name in truth:
        if name not in left | right:
            raise ConfigurationError(
                f"truth= has codes for {name!r}, which the formula {text!r} does not name."
            )
    model = pd.DataFrame(index=pd.RangeIndex(len(frame)))
    human = pd.DataFrame(index=pd.RangeIndex(int(coded.sum())))
    usable = np.ones(len(frame), dtype=bool)
    counts: dict[str, int] = {}
    notes: list[str] = []
    classes: dict[str, list[str]] = {}
    for name in sorted(left | right):
        if name not in frame.columns and name not in truth:
            column(frame, name, "formula")
        if name in truth:
            _label_columns(
                frame, name, truth[name], coded, name in right,
                model, human, usable, counts, notes, classes,
            )  # fmt: skip
        else:
            values = _covariate(frame, name)
            model[name] = values
            human[name] = values[coded]
    outcome = str(lhs)
    alone = outcome.strip("`") if outcome.strip("`") in truth else ""
    shares = str(rhs) == "1" and family == "ols"
    terms, model_x, human_x = _matrices(rhs, model, human, text)
    outcomes: dict[str, tuple[Floats, Floats]]
    if alone in classes:
        y, h = (np.asarray(f[alone], dtype=object) for f in (model, human))
        levels = classes[alone]
        if not shares and len(levels) != 2:
            raise ConfigurationError(
                f"{alone!r} has {count(len(levels), 'class')}: an outcome with covariates has two. "
                f"Write I({alone} == {levels[-1]!r}) ~ ...".replace("classs", "classes")
            )
        if shares:
            categories = model[alone].cat.categories
            missing = [UNANSWERED] if (y == UNANSWERED).any() else []
            outcomes = {
                c: ((y == c).astype(np.float64), (h == c).astype(np.float64))
                for c in [*(c for c in categories if c != UNANSWERED), *missing]
            }
        else:
            outcomes = {
                levels[1]: (
                    (y == levels[1]).astype(np.float64),
                    (h == levels[1]).astype(np.float64),
                )
            }
            notes.append(f"outcome: {alone} is {levels[1]!r}")
        return Design(terms, model_x, human_x, outcomes, usable, counts, shares, tuple(notes))
    names, y, h = _matrices(lhs, model, human, text, intercept=False)
    if y.shape[1] != 1:
        raise ConfigurationError(
            f"The outcome {outcome!r} has {y.shape[1]} columns: {', '.join(names[:5])}. Write "
            f"I({outcome} == ...) ~ ... for one of them."
        )
    outcomes = {names[0]: (y[:, 0], h[:, 0])}
    both = np.concatenate([y[usable, 0], h[:, 0]])
    if family == "logit" and (both.min() < 0 or both.max() > 1):
        raise ConfigurationError(
            f"The outcome {outcome!r} of a logit is 0 or 1; it goes from {both.min():g} to "
            f"{both.max():g}."
        )
    return Design(terms, model_x, human_x, outcomes, usable, counts, False, tuple(notes))


def _label_columns(
    frame: pd.DataFrame,
    name: str,
    code: str,
    coded: Bools,
    covariate: bool,
    model: pd.DataFrame,
    human: pd.DataFrame,
    usable: Bools,
    counts: dict[str, int],
    notes: list[str],
    classes: dict[str, list[str]],
) -> None:
    """Add one of the model's columns and its codes to the two frames."""
    answers, codes = column(frame, name, "formula"), column(frame, code, "truth")[coded]
    missing = answers.isna().to_numpy(dtype=bool)
    if missing.any():
        notes.append(f"{count(int(missing.sum()), 'row')} without an answer in {name}")
    if _is_numeric(answers) or _is_bool(answers):
        given, known = _numbers(answers), _numbers(codes)
        every = np.concatenate([given[~missing], known])
        two = bool(np.isin(every, (0.0, 1.0)).all())
        if two:
            for value in (0, 1):
                counts[f"{name} {value}"] = int((known == value).sum())
        if missing.any():
            # An outcome of 0 and 1: without an answer it is not of class 1.
            known_ones = np.sort(given[~missing])
            given[missing] = 0.0 if two or not len(known_ones) else known_ones[len(known_ones) // 2]
            if covariate or not two:
                usable &= ~missing
        model[name], human[name] = given, known
        return
    both = encode([answers, codes])
    first, second = both.codes
    coded_classes = [c for i, c in enumerate(both.labels) if (second == i).any()]
    for c in coded_classes:
        counts[c] = int((second == both.labels.index(c)).sum())
    classes[name] = coded_classes
    used = [c for i, c in enumerate(both.labels) if (first == i).any() or (second == i).any()]
    texts = np.array([*both.labels, UNANSWERED], dtype=object)
    if covariate:
        known_class = np.isin(texts[first], coded_classes)
        never = sorted(set(used) - set(coded_classes))
        if never:
            notes.append(
                f"{', '.join(never)} of {name} has no coded row: rows with it count by no label"
            )
        usable &= known_class
        cells = np.where(known_class, texts[first], coded_classes[0] if coded_classes else "")
        categories = coded_classes
    else:
        cells, categories = texts[first], [*used, *([UNANSWERED] if missing.any() else [])]
    model[name] = pd.Categorical(cells, categories=categories)
    human[name] = pd.Categorical(texts[second], categories=categories)


def _covariate(frame: pd.DataFrame, name: str) -> Any:
    """Return a column that formulaic takes: numbers, or categories with one for NA."""
    values = column(frame, name, "formula").reset_index(drop=True)
    missing = values.isna().to_numpy(dtype=bool)
    if _is_numeric(values) and not (_is_bool(values) and missing.any()):
        if missing.any():
            row = frame.index[int(np.argmax(missing))]
            raise MissingValueError(
                f"Column {name!r} of the formula has {count(int(missing.sum()), 'missing number')} "
                f"(first at row {row!r}). Fill them, or leave those rows out of the frame before "
                "it is sampled.",
                columns={name: int(missing.sum())},
                rows=(row,),
            )
        return values.to_numpy(dtype=np.float64)
    if values.dtype.kind in "mM":
        return values
    found = encode([values])
    used = [c for i, c in enumerate(found.labels) if (found.codes[0] == i).any()]
    texts = np.array([*found.labels, MISSING], dtype=object)[found.codes[0]]
    return pd.Categorical(texts, categories=[*used, *([MISSING] if missing.any() else [])])


def _matrices(
    side: Any, model: pd.DataFrame, human: pd.DataFrame, text: str, *, intercept: bool = True
) -> tuple[tuple[str, ...], Floats, Floats]:
    """Return the terms of one side of a formula, and their values in both frames."""
    from formulaic.errors import DataMismatchWarning

    try:
        with warnings.catch_warnings():  # a code that is no answer would become a row of zeros
            warnings.simplefilter("error", DataMismatchWarning)
            first = side.get_model_matrix(model, output="numpy", na_action="ignore")
            spec = first.model_spec
            second = spec.get_model_matrix(human, output="numpy", na_action="ignore")
    except DataMismatchWarning as e:
        raise CodesError(
            f"The formula {text!r} has classes in the hand codes that the model never gave: "
            f"{str(e).partition('): ')[2].partition('. ')[0]}. Make the columns categorical."
        ) from None
    except Exception as e:
        raise ConfigurationError(f"The formula {text!r} cannot be evaluated: {e}") from e
    out = [np.asarray(m, dtype=np.float64) for m in (first, second)]
    if len(out[0]) != len(model) or len(out[1]) != len(human) or np.isnan(out[0]).any():
        raise ConfigurationError(
            f"The formula {text!r} gives missing values, as the logarithm of a negative number."
        )
    return tuple(map(str, spec.column_names)), out[0], out[1]
