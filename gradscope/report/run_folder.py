"""The files of a run's folder: all that is needed to repeat a repair and to check it."""

from __future__ import annotations

import csv
import io
import json
import math
import platform
from collections.abc import Iterator, Mapping
from dataclasses import asdict

from gradscope import __version__
from gradscope.commandline import command_for, repeat_command
from gradscope.config import FixSettings, Settings
from gradscope.diagnosis import Inspection
from gradscope.report.json_ import as_dict
from gradscope.treatment import Treatment

MARK = "run.toml"
"""The file by which such a folder is known."""


def run_files(
    t: Treatment, settings: Settings, repair: FixSettings, hashes: Mapping[str, str]
) -> dict[str, str]:
    """Name -> content.

    Args:
        t: a repair that was written.
        settings, repair: as the user chose them.
        hashes: SHA-256 of the files that were read and written, by path.
    """
    files = {
        MARK: _settings(t, settings, repair, hashes),
        "before.json": _inspection(t.before),
        "history.csv": _history(t),
        "README.md": _readme(t, settings, repair),
    }
    if t.after is not None:
        files["after.json"] = _inspection(t.after)
    return files


def _inspection(inspection: Inspection) -> str:
    content = as_dict(inspection)
    return json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def _history(t: Treatment) -> str:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["step", t.metric or "score", "loss"])
    for step, score, loss in zip(t.steps, t.scores, t.losses, strict=True):
        rows.writerow([step, *("" if v is None else repr(v) for v in (score, loss))])
    return text.getvalue()


def _readme(t: Treatment, settings: Settings, repair: FixSettings) -> str:
    first, last = t.stages[0], t.stages[-1]
    before, after = ("-" if s.score is None else f"{s.score:.3f}" for s in (first, last))
    again = Settings(str(repair.out), settings.load, settings.data, settings.probe)
    return (
        f"# Repair of {settings.model}\n\n"
        f"Remedy: {t.chosen}. Held-out {t.metric} ({t.held_out}): {before} before, {after} after.\n"
        f"Trained with {t.recipe}.\n\n"
        "Repeat it, and look at the result, in the folder in which it was made:\n\n"
        f"```\n{repeat_command(settings, repair)}\n{command_for(again)}\n```\n\n"
        "On the same machine, with the same versions and number of threads, the first command\n"
        f"writes the same bytes again. `{MARK}` has every setting and the SHA-256 of every file;\n"
        "`before.json` and `after.json` what was measured; `history.csv` the held-out scores.\n"
    )


def _settings(
    t: Treatment, settings: Settings, repair: FixSettings, hashes: Mapping[str, str]
) -> str:
    versions = {"gradscope": __version__, "python": platform.python_version(),
                "torch": t.before.measurements.run.torch}  # fmt: skip
    result = {"remedy": t.chosen, "recipe": t.recipe, "steps": t.steps[-1] if t.steps else 0,
              "outcome": t.outcome.value}  # fmt: skip
    tables: list[tuple[str, Mapping[str, object]]] = [
        ("versions", versions),
        ("result", result),
        ("sha256", hashes),
        ("model", {"path": settings.model, **asdict(settings.load)}),
        ("data", asdict(settings.data) | {"samples": settings.data.samples or "all"}),
        ("probe", asdict(settings.probe)),
        ("repair", asdict(repair)),
    ]
    return "\n".join(line for name, table in tables for line in _table(name, table))


def _table(name: str, table: Mapping[str, object]) -> Iterator[str]:
    yield f"[{name}]"
    nested = []
    for key, value in table.items():
        if isinstance(value, Mapping):
            nested.append((key, value))
        elif value is None:
            yield f"# {_key(key)}: not given"
        else:
            yield f"{_key(key)} = {_value(value)}"
    yield ""
    for key, value in nested:
        yield from _table(f"{name}.{_key(key)}", value)


def _key(key: str) -> str:
    plain = key.isascii() and key.replace("_", "").replace("-", "").isalnum()
    return key if plain else _value(key)


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(_value(v) for v in value)}]"
    # TOML's basic strings are those of JSON, but for DEL, which it wants escaped as well.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
