"""Tables: named columns of cells, of which one is the label and the rest are features.

What CSV, Parquet and saved ``datasets`` share: which column is the label, texts as classes, and
features of single numbers side by side as one input.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from gradscope.errors import DataError, OptionError
from gradscope.loading.binding import LABEL_NAMES
from gradscope.loading.rows import Column, Reader, Source

CLASSES = 10_000
"""Different texts that a column of labels may have."""


@dataclass(frozen=True)
class Field:
    """One column of a table.

    Attributes:
        name: as in the file, or its number where the file has no names.
        dtype: of its numbers; int64 for texts, which become classes.
        shape: of one cell; () for a single number.
        text: whether its cells are texts: good for a label, not for an input.
        refused: why it cannot be run; an error only where it is needed.
    """

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...] = ()
    text: bool = False
    refused: DataError | None = None


@dataclass(frozen=True)
class Group:
    """Fields that are read as one array.

    Attributes:
        fields: numbers of the fields.
        dtype: of the array.
        joined: whether the fields lie side by side on a new axis, also where there is only one.
        classes: of a field of texts, in the order of their numbers.
    """

    fields: tuple[int, ...]
    dtype: torch.dtype
    joined: bool = False
    classes: tuple[str, ...] = ()


class Table(ABC):
    """A file, opened.

    Attributes:
        path: as the user named it.
        fields: its columns.
        count: rows.
    """

    def __init__(self, path: str, fields: Sequence[Field], count: int) -> None:
        self.path, self.fields, self.count = path, tuple(fields), count

    @abstractmethod
    def open(self, groups: Mapping[str, Group]) -> Reader:
        """A reader that gives each group under its name."""


class TableSource(Source):
    """A table as a source of samples.

    Args:
        table: where the cells are.
        label: number of the label's field.
        classes: of the label's texts, sorted; () if it holds numbers.
        notes: on how it was read.
        separate: every feature as an array of its own, whatever its shape.
    """

    tabular = True

    def __init__(
        self,
        table: Table,
        label: int | None,
        classes: tuple[str, ...] = (),
        notes: Sequence[str] = (),
        *,
        separate: bool = False,
    ) -> None:
        self._table, self._label, self._plain_notes = table, label, tuple(notes)
        features = [i for i in range(len(table.fields)) if i != label]
        groups, refused = _groups(table, features, label, separate)
        name = None if label is None else table.fields[label].name
        if label is not None and name is not None:
            target = table.fields[label]
            if target.refused is not None:
                raise target.refused
            dtype = torch.int64 if target.dtype is torch.bool else target.dtype
            groups[name] = Group((label,), dtype, classes=classes)
        columns = {n: _column(table, g) for n, g in groups.items()}
        notes = (*notes, *_label_notes(table, label, classes))
        super().__init__(table.path, columns, label=name, notes=notes, refused=refused)
        self._groups, self.classes, self._separate = groups, classes, separate

    def open(self, names: Sequence[str]) -> Reader:
        return self._table.open({n: self._groups[n] for n in names})

    def arranged(self, required: Sequence[str]) -> TableSource:
        """Features as arrays of their own where they are what a model of several inputs asks for.

        Args:
            required: names of the model's inputs.
        """
        features = {f.name for i, f in enumerate(self._table.fields) if i != self._label}
        if self._separate or len(required) < 2 or not set(required) <= features:
            return self
        args = (self._table, self._label, self.classes, self._plain_notes)
        return TableSource(*args, separate=True)

    def with_classes(self, classes: tuple[str, ...]) -> TableSource:
        """The same with the classes' numbers of another file."""
        if self.classes == classes or not self.classes:
            return self
        unknown = [c for c in self.classes if c not in classes]
        if unknown:
            what = f"label '{self.label}' has '{unknown[0]}', which no label of --data is"
            raise DataError(what, where=self.path, hint="Both need the same classes.")
        args = (self._table, self._label, classes, self._plain_notes)
        return TableSource(*args, separate=self._separate)

    def names_of(self, column: str) -> tuple[str, ...]:
        """The fields that lie side by side in a column."""
        return tuple(self._table.fields[i].name for i in self._groups[column].fields)


def _groups(
    table: Table, features: list[int], label: int | None, separate: bool
) -> tuple[dict[str, Group], dict[str, DataError]]:
    """Arrays by name, and what cannot be one."""
    fields = table.fields
    groups: dict[str, Group] = {}
    refused: dict[str, DataError] = {}
    if not features:
        raise DataError("has labels but no features", where=table.path)
    if separate or any(fields[i].shape for i in features):
        for i in features:
            error = fields[i].refused or _text_refusal(table, i, label)
            if error is None:
                groups[fields[i].name] = Group((i,), fields[i].dtype)
            else:
                refused[fields[i].name] = error
        return groups, refused
    name = "x" if label is None or fields[label].name != "x" else "input"
    error = next(
        (e for i in features if (e := fields[i].refused or _text_refusal(table, i, label))), None
    )
    if error is not None:
        return {}, {name: error}
    whole = all(not fields[i].dtype.is_floating_point for i in features)
    dtype = torch.int64 if whole else torch.float64
    return {name: Group(tuple(features), dtype, joined=True)}, {}


def _text_refusal(table: Table, index: int, label: int | None) -> DataError | None:
    field = table.fields[index]
    if not field.text:
        return None
    hint = "Turn it into numbers or leave it out"
    hint += "." if label is not None else f"; if it is the label: --label-column {field.name}."
    return DataError(f"column '{field.name}' holds texts", where=table.path, hint=hint)


def _column(table: Table, group: Group) -> Column:
    inner = (len(group.fields),) if group.joined else table.fields[group.fields[0]].shape
    return Column((table.count, *inner), group.dtype)


def find_label(names: Sequence[str], wanted: str | None) -> int | None:
    """Number of the column of labels.

    Args:
        names: of all columns.
        wanted: ``--label-column``, a name or a number, from the end if negative; None goes by the
            usual names, in any case.

    Raises:
        OptionError: there is no such column.
    """
    if wanted is None:
        folded = [n.casefold() for n in names]
        return next((folded.index(n) for n in LABEL_NAMES if n in folded), None)
    if wanted in names:
        return list(names).index(wanted)
    try:
        number = int(wanted)
    except ValueError:
        number = len(names)
    if not -len(names) <= number < len(names):
        what = f"there is no column '{wanted}' among {len(names)}: {few(names)}"
        raise OptionError(what, where="--label-column", hint="Give its name, or its number from 0.")
    return number % len(names)


def _label_notes(table: Table, label: int | None, classes: tuple[str, ...]) -> list[str]:
    if label is None:
        usual = ", ".join(LABEL_NAMES)
        return [
            f"no labels: no column is called {usual}; --label-column NAME or NUMBER says which is"
        ]
    name = table.fields[label].name
    if not classes:
        return [f"labels are column '{name}'"]
    mapping = [f"{i} = {c}" for i, c in enumerate(classes)]
    return [f"labels are column '{name}', {len(classes)} classes in sorted order: {few(mapping)}"]


def few(names: Sequence[str], count: int = 10) -> str:
    """The first names, and that there are more."""
    shown = ", ".join(n if len(n) <= 40 else f"{n[:37]}..." for n in names[:count])
    return shown if len(names) <= count else f"{shown}, ..."
