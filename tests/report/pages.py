"""Inspections whose pages are opened in a browser: measured ones, a deep one, a hostile one."""

from __future__ import annotations

from dataclasses import replace

from gradscope.config import DataSettings, LoadSettings, Settings
from gradscope.diagnosis import Inspection
from gradscope.findings import Skipped
from gradscope.measurements import (
    Arm,
    GradientStats,
    Histogram,
    Measurements,
    ModelInfo,
    Octaves,
    Parameter,
    State,
    Trial,
    Units,
    WeightStats,
)
from gradscope.rules.examples import measured, parameter, poor_skill, site
from tests.report.examples import EXAMPLES, chain, inspection

SAMPLES = "sample_models"
DATA = DataSettings(f"{SAMPLES}/digits.npz", f"{SAMPLES}/digits_val.npz")
MEASURED = {
    "healthy": Settings(f"{SAMPLES}/healthy_tanh.pt", data=DATA),
    "saturated": Settings(f"{SAMPLES}/saturated_tanh.pt", data=DATA),
    "recurrent": Settings(
        f"{SAMPLES}/lstm_state.pt",
        LoadSettings(arch=f"{SAMPLES}/architectures.py:lstm_classifier"),
        DATA,
    ),
}
"""Sample models, with the paths as they stand in a clone."""

HOSTILE = (
    "</script><script>window.pwned = 1</script>",
    "\"'><img src=x onerror='window.pwned = 2'>",
    "{{ 7 * 7 }}{% raw %}",
    "<b>%{x}</b><a href='javascript:window.pwned=3'>a</a>",
    "<!--<script>",
    "a&lt;b\u2028]]>\u202e\x1b[31m",
)


def deep(layers: int) -> Inspection:
    """As many layers as asked for, each with a weight, a bias and all that charts show."""
    m = chain(layers, -0.01, "backbone.blocks.{}.attention.output")
    units = Units(64, tuple(i / 63 for i in range(64)), 4, None, (60, 61, 62, 63))
    sites = tuple(replace(s, units=units) for s in m.sites)
    parameters = tuple(
        p
        for i, w in enumerate(m.parameters)
        for p in (_filled(w, i), _filled(replace(w, name=f"{w.layer}.bias", shape=(64,)), i))
    )
    return inspection(replace(m, sites=sites, parameters=parameters))


def _filled(p: Parameter, i: int) -> Parameter:
    size = 10 ** (-i / 100)
    quantiles = {f"q{q:02}": size * q / 1000 for q in (1, 5, 25, 50, 75, 95, 99)}
    octaves = Octaves(-30, tuple(100 + (7 * k + i) % 90 for k in range(20)))
    gradient = GradientStats(
        State.VALUE, 4096, size, size / 64, size, quantiles, 0.06, 0.0, octaves=octaves
    )
    histogram = Histogram(-0.51234, 0.61234, tuple(1000 - abs(24 - k) * 40 for k in range(48)))
    spectral, ratio = (1.2345, 1.0123) if len(p.shape) > 1 else (None, None)
    weight = WeightStats(
        State.VALUE, 0.123456, 0.61234, spectral, 1e-6, ratio, 0.0, 0.0, (), histogram
    )
    return replace(p, weight=weight, gradient=gradient, loss_gradient=gradient, names=(p.name,))


def hostile() -> Inspection:
    """Text from outside wherever a report can have some."""
    m: Measurements = chain(len(HOSTILE), -1.0, "{}")
    renamed = dict(zip((s.id for s in m.sites), HOSTILE, strict=True))
    sites = tuple(replace(s, id=renamed[s.id], layer=renamed[s.id]) for s in m.sites)
    parameters = tuple(
        replace(_filled(parameter(name), i), names=(name,)) for i, name in enumerate(HOSTILE)
    )
    head = m.heads[0]
    entries = tuple(
        replace(e, site=renamed[e.site], label=renamed[e.site]) for e in head.ledger.entries
    )
    head = replace(head, name=HOSTILE[0], ledger=replace(head.ledger, entries=entries))
    return inspection(
        replace(
            m,
            sites=sites,
            parameters=parameters,
            heads=(head, replace(head, name=HOSTILE[1])),
            model=ModelInfo(HOSTILE[0], HOSTILE[3], 64, 64, HOSTILE[2], HOSTILE),
            sample=replace(m.sample, path=HOSTILE[1], notes=HOSTILE, inputs={HOSTILE[0]: (8,)}),
            skipped=tuple(Skipped(name, name) for name in HOSTILE),
        )
    )


def tried() -> Inspection:
    """ReLU units of two sizes, and a trial on copies, one of which ended early."""
    arms = (
        Arm((0, 100, 200), (0.1, 0.11, 0.12), (2.3, 2.3, 2.2)),
        Arm((0, 100), (0.1, None), (2.3, None), "the loss was not finite"),
    )
    sites = [
        site(f"{i}/relu", kind="relu", saturated_fraction=None, shrink=None,
             units=Units(n, None, None, 1, (), (0,), (1.0, *(0.3,) * (n - 1))))
        for i, n in enumerate((4, 300))
    ]  # fmt: skip
    trial = Trial(
        200, "Adam 1e-3", "orthogonal weights", ("0",), "accuracy", "a quarter of the sample", 50,
        0.1, *arms, None, None, (Arm((0, 100), (0.1, 0.1), (2.3, 2.4), None, "SGD <b>"),), 200,
    )  # fmt: skip
    return inspection(measured(*sites, trial=trial, skill=poor_skill()))


MADE = {
    "tried": tried,
    "deep": lambda: deep(500),
    "hostile": hostile,
    "weights-only": lambda: inspection(EXAMPLES["weights-only"]()),
    "broken": lambda: inspection(EXAMPLES["broken"]()),
    "residual": lambda: inspection(EXAMPLES["residual"]()),
}
