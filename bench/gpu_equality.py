"""Measurements on a GPU against those of the CPU: the first section of ``bench/gpu.py``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

HERE = Path(__file__).resolve().parent
SAMPLES = HERE.parent / "sample_models"
DATA = {"raw_pixels": "digits_raw.npz", "saturated_cnn": "mnist.npz"}
"""What each sample model is measured on; the others: the digits."""

DECADES, SHARE, RELATIVE = 5e-3, 2e-3, 2e-3
"""Tolerances: gains in decades, shares of elements, gradient norms relative to the CPU's."""


def _sample_models() -> Iterator[tuple[str, nn.Module, torch.Tensor, torch.Tensor | None]]:
    sys.path.insert(0, str(SAMPLES))
    import architectures

    for path in sorted(SAMPLES.glob("*.pt")):
        data = np.load(SAMPLES / DATA.get(path.stem, "digits.npz"))
        x = torch.from_numpy(data["x"][:256].astype(np.float32))
        y = torch.from_numpy(data["y"][:256].astype(np.int64))
        held = torch.load(path, map_location="cpu", weights_only=False)  # of our own making
        if not isinstance(held, nn.Module):
            make = {"lstm_state": "lstm_classifier", "residual_state": "residual_mlp"}[path.stem]
            module = getattr(architectures, make)()
            module.load_state_dict(held)
            held = module
        yield path.name, held, x, y


def _small_models() -> Iterator[tuple[str, nn.Module, torch.Tensor, torch.Tensor | None]]:
    from speed_cases import Last, cnn, mlp, resnet, transformer

    torch.manual_seed(0)
    yield "MLP 6 x 64", mlp(6, 64), torch.randn(96, 64), None
    yield "CNN", cnn(), torch.randn(32, 3, 16, 16), None
    yield "ResNet-like", resnet(), torch.randn(16, 3, 16, 16), None
    yield "LSTM 2 x 24", Last(nn.LSTM(16, 24, 2, batch_first=True)), torch.randn(32, 20, 16), None
    both = nn.LSTM(16, 24, batch_first=True, bidirectional=True, proj_size=12)
    wide = Last(both)
    wide.head = nn.Linear(24, 10)
    yield "LSTM both ways, projected", wide, torch.randn(32, 20, 16), None
    yield "GRU 2 x 24", Last(nn.GRU(16, 24, 2, batch_first=True)), torch.randn(32, 20, 16), None
    yield "RNN 24", Last(nn.RNN(16, 24, batch_first=True)), torch.randn(32, 20, 16), None
    yield "Transformer 2 x 64", transformer(2, 64), torch.randn(16, 24, 64), None


def measured(module: nn.Module, x: torch.Tensor, y: torch.Tensor | None, device: str) -> Any:
    from gradscope.config import ProbeSettings
    from gradscope.model import Batch, LoadedModel, Sample
    from gradscope.probe import measure
    from gradscope.progress import Silent

    half = len(x) // 2 + 3  # two batches of different sizes

    def batches() -> Iterator[Batch]:
        for a, b in ((0, half), (half, len(x))):
            yield Batch((x[a:b],), {}, None if y is None else y[a:b], b - a, a)

    shapes = {"x": tuple(x.shape[1:])}
    sample = Sample("x", len(x), len(x), False, y is not None, shapes, batches)
    settings = ProbeSettings(device=device)
    return measure(LoadedModel("m", "module", module), sample, None, settings, 0, half, Silent())


class Differences:
    """The largest of each kind, and what differs in kind."""

    def __init__(self) -> None:
        self.largest: dict[str, float] = {"decades": 0.0, "share": 0.0, "relative": 0.0}
        self.other: list[str] = []
        self.compared = 0

    def number(self, kind: str, what: str, a: float | None, b: float | None) -> None:
        """``a`` of the CPU, ``b`` of the device."""
        if a is None or b is None:
            if a is not b:
                self.other.append(f"{what}: {a} and {b}")
            return
        self.compared += 1
        gap = abs(a - b) / abs(a) if kind == "relative" and a else abs(a - b)
        self.largest[kind] = max(self.largest[kind], gap)

    def same(self, what: str, a: object, b: object) -> None:
        """For what has no size."""
        if a != b:
            self.other.append(f"{what}: {a} and {b}"[:160])

    @property
    def fine(self) -> bool:
        """Whether all is within the tolerances."""
        limits = {"decades": DECADES, "share": SHARE, "relative": RELATIVE}
        return not self.other and all(v <= limits[k] for k, v in self.largest.items())


def _compared(cpu: Any, other: Any) -> Differences:
    found = Differences()
    for one, two in zip(cpu.heads, other.heads, strict=True):
        a, b = one.ledger, two.ledger
        found.same("ledger", [e.site for e in a.entries], [e.site for e in b.entries])
        for name in ("total", "median", "activation", "slope", "weight"):
            found.number("decades", f"ledger {name}", getattr(a, name), getattr(b, name))
        for x, y in zip(a.entries, b.entries, strict=False):
            found.number("decades", f"ledger at {x.site}", x.cumulative, y.cumulative)
    found.same("sites", [s.id for s in cpu.sites], [s.id for s in other.sites])
    for s, t in zip(cpu.sites, other.sites, strict=False):
        found.number("share", f"saturated {s.id}", s.saturated_fraction, t.saturated_fraction)
        found.number("share", f"zero {s.id}", s.zero_fraction, t.zero_fraction)
        found.number("decades", f"gain {s.id}", s.output_gain, t.output_gain)
        found.number("relative", f"rms {s.id}", s.pre_activation_rms, t.pre_activation_rms)
    for p, q in zip(cpu.parameters, other.parameters, strict=True):
        for kind in ("gradient", "loss_gradient"):
            g, h = getattr(p, kind), getattr(q, kind)
            if g is not None and h is not None:
                found.same(f"{kind} {p.name}", g.state, h.state)
                found.number("relative", f"{kind} {p.name}", g.norm, h.norm)
        found.number("relative", f"weight {p.name}", p.weight.rms, q.weight.rms)
        norms = p.weight.spectral_norm, q.weight.spectral_norm
        found.number("relative", f"spectral norm {p.name}", *norms)
    if cpu.skill is not None:
        found.number("share", "accuracy", cpu.skill.accuracy, other.skill.accuracy)
        found.number("relative", "loss", cpu.skill.loss, other.skill.loss)
    return found


def equality(device: str) -> list[str]:
    """One row a model."""
    lines = [
        "| model | sites | numbers | decades | shares | relative | within |",
        "|---|---|---|---|---|---|---|",
    ]
    for models in (_sample_models, _small_models):
        try:
            for name, module, x, y in models():
                lines.append(_row(name, module, x, y, device))
        except Exception as error:
            lines.append(f"\n{models.__name__} broke off: {type(error).__name__}: {error}\n")
    limits = f"{DECADES} decades, {SHARE} of elements, {RELATIVE} relative"
    return [f"Tolerances: {limits}.", "", *lines]


def _row(name: str, module: nn.Module, x: torch.Tensor, y: torch.Tensor | None, device: str) -> str:
    try:
        cpu = measured(module.eval().cpu(), x, y, "cpu")
        found = _compared(cpu, measured(module, x, y, device))
    except Exception as error:
        return f"| {name} | | | | | | FAILED {type(error).__name__}: {str(error)[:200]} |"
    gaps = " | ".join(f"{found.largest[k]:.1e}" for k in ("decades", "share", "relative"))
    said = "yes" if found.fine else "NO " + "; ".join(found.other[:3])
    return f"| {name} | {len(cpu.sites)} | {found.compared} | {gaps} | {said} |"
