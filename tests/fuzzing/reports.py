"""What the tool itself wrote and reads again: reports for ``compare``, baselines for ``check``."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from gradscope.checking.baseline import as_text, compare, read_baseline
from gradscope.comparing import Subject, read_report
from gradscope.comparing import compare as side_by_side
from gradscope.config import DataSettings, LoadSettings, Settings
from gradscope.loading import load_model
from gradscope.pipeline import inspect
from gradscope.report import COMPARE_FORMATS, compare_format, render
from gradscope.report.base import Canvas

MODELS = Path(__file__).parents[2] / "sample_models"
_KEPT = 3  # items of a list: damage is to meet more than counts of histograms
_COMPARED = (
    "schema", "tool", "model", "sample", "run", "verdict", "summary", "causes", "skill", "ledger",
    "activations", "findings",
)  # fmt: skip
_ENTRY = {
    "fingerprint": "0123456789abcdef", "code": "GS101", "name": "vanishing-gradient",
    "where": "0", "severity": "error", "value": -5.8,
}  # fmt: skip
BASELINES: tuple[dict[str, Any], ...] = (
    {"schema": "gradscope.baseline/1", "models": {"model.pt": [_ENTRY, {**_ENTRY, "value": None}]}},
    {
        "schema": "gradscope.baseline/1",
        "models": {
            "a/model.pt": [{**_ENTRY, "fingerprint": f"{i:016x}", "where": f"{i}"} for i in (1, 2)],
            "b.onnx": [{**_ENTRY, "severity": s, "code": "GS203"} for s in ("warning", "error")],
            "empty.pt": [],
        },
    },
)


@cache
def good_reports() -> list[dict[str, bytes]]:
    """:func:`reports`, and everything that opening one needs."""
    for name in COMPARE_FORMATS:
        compare_format(name).render(side_by_side([_sound(), _sound()], 0.1), Canvas())
    return reports()


@cache
def reports() -> list[dict[str, bytes]]:
    """Of a model that is ill, one that works, and weights alone; lists cut short, and of two of
    them only the parts that are compared."""
    data = str(MODELS / "digits_val.npz")
    found = []
    for name, given in (("deep_tanh.pt", data), ("relu.pt", None), ("residual_state.pt", None)):
        settings = Settings(str(MODELS / name), data=DataSettings(data=given, samples=16))
        text = render("json", inspect(settings))
        whole = _shortened(json.loads(text))
        if found:
            whole = {key: whole[key] for key in _COMPARED}
        found.append({"r.json": json.dumps(whole).encode()})
    return found


def _shortened(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _shortened(value) for key, value in tree.items()}
    return [_shortened(item) for item in tree[:_KEPT]] if isinstance(tree, list) else tree


def baselines() -> list[dict[str, bytes]]:
    """Two of them."""
    _sound()
    return [{"b.json": json.dumps(baseline).encode()} for baseline in BASELINES]


@cache
def _sound() -> Subject:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "r.json"
        path.write_bytes(reports()[0]["r.json"])
        subject = read_report(str(path))
    assert subject is not None
    return subject


def open_report(path: Path) -> None:
    """As ``compare`` does, beside a sound one: read, set side by side, and printed in each form."""
    subject = read_report(str(path))
    if subject is None:
        load_model(str(path), LoadSettings())
        return
    for pair in ([_sound(), subject, subject], [subject, _sound()]):
        found = side_by_side(pair, 0.1)
        for name in COMPARE_FORMATS:
            compare_format(name).render(found, Canvas())


def open_baseline(path: Path) -> None:
    """As ``check`` does: read, held against findings, and written again."""
    baseline = read_baseline(str(path))
    for entries in baseline.models.values():
        compare(_sound().findings, (), entries, 0.1)
    as_text(baseline)
