"""Tiny hand-made measurements, for the examples that stand inside the rules."""

from __future__ import annotations

from typing import Any

from gradscope.measurements import (
    GradientStats,
    Head,
    Ledger,
    LedgerEntry,
    Measurements,
    ModelInfo,
    Parameter,
    Role,
    RunInfo,
    SampleInfo,
    Site,
    Skill,
    State,
    TimeLedger,
    Units,
    WeightStats,
)


def site(name: str, **given: Any) -> Site:
    """A healthy hidden tanh, but for what is given."""
    values: dict[str, Any] = {
        "id": name, "kind": "tanh", "role": Role.HIDDEN, "gate": None,
        "layer": name.partition("/")[0], "parameters": (f"{name.partition('/')[0]}.weight",),
        "calls": 1, "numel": 800, "saturated_fraction": 0.02, "mean_relative_derivative": 0.8,
        "pre_activation_rms": 0.6, "activation_rms": 0.5, "sample_variance_ratio": 0.6,
        "zero_fraction": None, "nonfinite_fraction": 0.0, "units": Units(8, (0.02,) * 8, 0),
        "output_gain": -0.2, "gradient_state": State.VALUE, "shrink": 1.1,
        "output_gain_median": -0.3, "silent_fraction": 0.0,
    }  # fmt: skip
    return Site(**{**values, **given})


def weight(**given: Any) -> WeightStats:
    """An 8x8 weight of the usual size, but for what is given."""
    values: dict[str, Any] = {
        "state": State.VALUE, "rms": 0.35, "max_abs": 0.9, "spectral_norm": 1.1,
        "spectral_tolerance": 1e-6, "init_ratio": 1.0, "zero_fraction": 0.0,
        "nonfinite_fraction": 0.0,
    }  # fmt: skip
    return WeightStats(**{**values, **given})


def parameter(name: str, **given: Any) -> Parameter:
    """A healthy 8x8 weight, but for what is given."""
    gradient = GradientStats(State.VALUE, 64, 0.8, 0.1, 0.4)
    values: dict[str, Any] = {
        "name": name, "names": (name,), "layer": name.rpartition(".")[0], "shape": (8, 8),
        "numel": 64, "dtype": "float32", "trainable": True, "fan_in": 8, "weight": weight(),
        "gradient": gradient, "loss_gradient": None, "grad_to_weight_ratio": 0.3, "used": True,
    }  # fmt: skip
    return Parameter(**{**values, **given})


def time_ledger(**given: Any) -> TimeLedger:
    """Thirty steps that neither lose nor gain much, but for what is given."""
    values: dict[str, Any] = {
        "site": "rnn.l0/tanh", "steps": 30, "decades_per_step": -0.04, "total": -1.2,
        "output_at": (0, 29), "growth": 0.0,
    }  # fmt: skip
    return TimeLedger(**{**values, **given})


def measured(
    *sites: Site,
    parameters: tuple[Parameter, ...] = (),
    total: float | None = -0.5,
    entries: tuple[LedgerEntry, ...] = (),
    time: tuple[TimeLedger, ...] = (),
    weight: float | None = None,
    layers: int = 0,
    **given: Any,
) -> Measurements:
    """A model with these sites, whose ledger has this total (and ``layers`` alike entries)."""
    third = None if total is None else total / 3
    alike = LedgerEntry("0/tanh", "0/tanh", "tanh", third, third, 0.0, third, total, total)
    ledger = Ledger(
        total, 0.02, total, third, 0.0, third if weight is None else weight, 400, 0, 9,
        entries or (alike,) * layers, time,
    )  # fmt: skip
    head = Head("output", (100, 10), 0, None, total, ledger)
    values: dict[str, Any] = {
        "model": ModelInfo("model.pt", "PyTorch module", 64, 64),
        "sample": SampleInfo("data.npz", 100, 100, False, False),
        "run": RunInfo("eval", 0, 4, 100, "cpu", "float32", "2", 1, 4),
        "heads": (head,), "sites": sites, "parameters": parameters,
    }  # fmt: skip
    return Measurements(**{**values, **given})


def chain(ratio: float, layers: int = 14, **given: Any) -> Measurements:
    """Tanh layers whose weights have this init_ratio, and a ledger that loses nothing."""
    names = [str(2 * i) for i in range(layers)]
    weights = (parameter(f"{n}.weight", weight=weight(init_ratio=ratio)) for n in names)
    entries = (
        LedgerEntry(f"{n}/tanh", f"{n}/tanh", "tanh", 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
        for n in reversed(names)
    )
    return measured(
        *(site(f"{n}/tanh", mean_relative_derivative=0.95) for n in names),
        parameters=tuple(weights), entries=tuple(entries), **{"total": 0.3, **given},
    )  # fmt: skip


def poor_skill() -> Skill:
    """Labelled data show that the model has not learned its task."""
    return Skill(0.05, 0.02, 2.2, "cross-entropy", "integer labels", 0.2, True, 450)


def at_chance() -> Skill:
    """Labelled data show a model that is confidently wrong."""
    return Skill(-0.8, 0.1, 4.1, "cross-entropy", "integer labels", 0.1, True, 450, 0.1, 0.0, 0.02)
