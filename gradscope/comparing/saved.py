"""Reports that ``gradscope inspect --format json`` saved, read back. Their content is hostile."""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Iterator
from enum import Enum
from typing import Any, TypeVar

from gradscope.checking.json_file import read_json
from gradscope.comparing.results import Figures, Place, Subject
from gradscope.comparing.subjects import reads_median, setup
from gradscope.diagnosis import Verdict
from gradscope.errors import GradscopeError
from gradscope.findings import Cause, Finding, Severity

SCHEMA = "gradscope.report/1"
MOST_BYTES = 256 << 20
_START = 512

Choice = TypeVar("Choice", bound=Enum)


class ReportError(GradscopeError):
    """A file of JSON that is no report."""


def read_report(path: str) -> Subject | None:
    """The saved report in a file; its letter comes later. None: it is no JSON, but a model.

    Raises:
        ReportError: it is JSON, and neither a report nor the index of a model in shards.
    """
    hint = f"gradscope inspect MODEL --format json writes one ({SCHEMA})."
    try:
        if not _is_json(path):
            return None
        content = read_json(path, MOST_BYTES)
        if isinstance(content, dict) and "weight_map" in content and "schema" not in content:
            return None
        return _subject(path, Fields(content, ""))
    except (ValueError, RecursionError, MemoryError) as error:
        said = str(error) or type(error).__name__
        raise ReportError(f"is no report ({said[:200]})", where=path, hint=hint) from error


def _is_json(path: str) -> bool:
    """By its first bytes: an object, in text. Models are never that, but for an index."""
    if not os.path.isfile(path):
        return False  # the model's loader says it better, and a pipe would be waited for
    with open(path, "rb") as file:
        start = file.read(_START)
    return start.lstrip().startswith(b"{") and b"\0" not in start


class Fields:
    """An object of JSON whose values are asked for by name and type.

    Every method raises ValueError, with the place, where the value is missing or of another type.
    """

    def __init__(self, content: object, place: str) -> None:
        self._place = place
        if not isinstance(content, dict):
            raise ValueError(f"{place or 'the whole'} is no object")
        self._content: dict[str, Any] = content

    def _get(self, key: str) -> Any:
        if key not in self._content:
            raise ValueError(f"{self._name(key)} is missing")
        return self._content[key]

    def _name(self, key: str) -> str:
        return f"{self._place}.{key}".lstrip(".")

    def text(self, key: str) -> str:
        """A string."""
        value = self._get(key)
        if not isinstance(value, str):
            raise ValueError(f"{self._name(key)} is no string")
        return value

    def matching(self, key: str, pattern: str) -> str:
        """A string of this form."""
        text = self.text(key)
        if re.fullmatch(pattern, text, re.ASCII) is None:
            raise ValueError(f"{self._name(key)} is not of the form {pattern}")
        return text

    def text_or_none(self, key: str) -> str | None:
        """A string or null."""
        return None if self._get(key) is None else self.text(key)

    def number(self, key: str) -> float | None:
        """A finite number or null."""
        value = self._get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{self._name(key)} is no number")
        try:
            found = float(value)
        except OverflowError:
            found = math.inf
        if not math.isfinite(found):
            raise ValueError(f"{self._name(key)} is not finite")
        return found

    def integer(self, key: str) -> int:
        """A whole number of any sign, of 18 digits at most."""
        value = self._get(key)
        if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= 10**18:
            raise ValueError(f"{self._name(key)} is no whole number")
        return value

    def flag(self, key: str) -> bool:
        """True or false."""
        value = self._get(key)
        if not isinstance(value, bool):
            raise ValueError(f"{self._name(key)} is neither true nor false")
        return value

    def choice(self, key: str, of: type[Choice]) -> Choice:
        """One of an enum's values."""
        try:
            return of(self.text(key))
        except ValueError:
            known = ", ".join(str(member.value) for member in of)
            raise ValueError(f"{self._name(key)} is none of {known}") from None

    def object(self, key: str) -> Fields:
        """An object."""
        return Fields(self._get(key), self._name(key))

    def object_or_none(self, key: str) -> Fields | None:
        """An object or null."""
        return None if self._get(key) is None else self.object(key)

    def objects(self, key: str) -> Iterator[Fields]:
        """A list of objects."""
        for i, item in enumerate(self.list(key)):
            yield Fields(item, f"{self._name(key)}[{i}]")

    def list(self, key: str) -> list[Any]:
        """A list of anything."""
        value = self._get(key)
        if not isinstance(value, list):
            raise ValueError(f"{self._name(key)} is no list")
        return value


def _subject(path: str, report: Fields) -> Subject:
    if report.text("schema") != SCHEMA:
        raise ValueError(f'"schema" is not "{SCHEMA}"')
    model, sample, run = report.object("model"), report.object("sample"), report.object("run")
    total, median, places = _ledger(report.object_or_none("ledger"))
    skill = report.object_or_none("skill")
    scores = [None if skill is None else skill.number(k) for k in ("value", "accuracy", "loss")]
    return Subject(
        "", path, model.text("path"), model.text("format"), model.integer("parameters"),
        report.choice("verdict", Verdict), report.text("summary"),
        tuple(Cause(text) for text in _texts(report, "causes", Cause)),
        Figures(total, median, _saturated(report), *scores),
        setup(
            data=sample.text_or_none("path"), held_out=sample.text_or_none("validation"),
            samples=sample.integer("samples"), mode=run.text("mode"), seed=run.integer("seed"),
            draws=run.integer("draws"), version=report.object("tool").text("version"),
        ),
        places, tuple(_finding(f) for f in report.objects("findings")), saved=True,
    )  # fmt: skip


def _texts(fields: Fields, key: str, of: type[Enum] | None = None) -> Iterator[str]:
    for text in fields.list(key):
        if not isinstance(text, str):
            raise ValueError(f"{key} holds what is no string")
        if of is not None and text not in {member.value for member in of}:
            raise ValueError(f"{key} holds the unknown '{text[:60]}'")
        yield text


def _ledger(
    ledger: Fields | None,
) -> tuple[float | None, float | None, tuple[Place, ...]]:
    if ledger is None:
        return None, None, ()
    total, median = ledger.number("total"), ledger.number("median")
    left = "cumulative_median" if reads_median(total, median) else "cumulative"
    places = tuple(
        Place(e.text("site"), e.text("label"), e.number(left), e.number("gain"))
        for e in ledger.objects("entries")
    )
    return total, median, places


def _saturated(report: Fields) -> float | None:
    """As ``Measurements.hidden_saturation``."""
    shares = [
        share
        for site in report.objects("activations")
        if site.text("role") == "hidden"
        and (share := site.number("saturated_fraction")) is not None
    ]
    return sum(shares) / len(shares) if shares else None


def _finding(found: Fields) -> Finding:
    cause = None if found.text_or_none("cause") is None else found.choice("cause", Cause)
    plain = {
        f.name: found.text(f.name)
        for f in dataclasses.fields(Finding)
        if f.name in ("where", "message", "advice", "about")
    }
    return Finding(
        code=found.matching("code", r"GS[0-9]{3}"), name=found.matching("name", r"[a-z0-9-]{1,60}"),
        **plain, severity=found.choice("severity", Severity), value=found.number("value"),
        threshold=found.number("threshold"), cause=cause, hinges=found.flag("hinges"),
        remedies=tuple(_texts(found, "remedies")),
    )  # fmt: skip
