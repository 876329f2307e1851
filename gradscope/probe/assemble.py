"""From sums to the numbers of a report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import replace

import numpy as np
import torch

from gradscope.findings import Skipped
from gradscope.measurements import (
    GradientStats,
    Head,
    Layer,
    Ledger,
    Parameter,
    Role,
    Site,
    State,
    TimeLedger,
    TimeStep,
    Units,
    WeightStats,
)
from gradscope.model import Origin
from gradscope.probe.activations import RELU_LIKE
from gradscope.probe.forward import ForwardPass
from gradscope.probe.kinds import class_name
from gradscope.probe.ledger import Trace, compile_ledger, log_medians, log_rms, time_ledger
from gradscope.probe.magnitudes import shrink
from gradscope.probe.reparam import owner_of
from gradscope.probe.stats import ForwardStats, variance_ratios
from gradscope.probe.subject import Names
from gradscope.probe.sums import SiteSums, Sums
from gradscope.probe.weights import Weight, init_ratio, stats_of_all, weight_stats

UNIT_SATURATED_ABOVE = 0.95
_MAX_UNITS, _MAX_INDICES, _MAX_STEPS = 1024, 32, 256
_TOGETHER = 1 << 18  # numbers that are looked at together
_THROUGH_TIME = {"state", "new"}


def sites(sums: Sums) -> tuple[Site, ...]:
    """All activations, in execution order."""
    every = list(sums.sites.items())
    ratios = variance_ratios([s.forward for _, s in every])
    spreads = _over_samples([s.squares.whole() for _, s in every])
    return tuple(
        _site(name, s, sums.backward_passes, ratio, *spread)
        for (name, s), ratio, spread in zip(every, ratios, spreads, strict=True)
    )


def _site(
    name: str,
    s: SiteSums,
    backward_passes: int,
    variance_ratio: float | None,
    median_gain: float | None,
    silent: float | None,
) -> Site:
    forward, info = s.forward, s.info
    n = forward.numel
    state, gain = _gradient(s) if backward_passes else (None, None)
    relative = float(forward.relative) / n if forward.relative is not None and n else None
    return Site(
        id=name,
        kind=info.kind.name,
        role=info.role,
        gate=info.gate,
        layer=info.layer,
        parameters=info.parameters,
        calls=max(len(s.calls), 1),
        numel=n,
        saturated_fraction=_share(forward.saturated, n),
        mean_relative_derivative=_finite(relative),
        pre_activation_rms=_rms(forward.pre_square, n),
        activation_rms=_rms(forward.out_square, n),
        sample_variance_ratio=variance_ratio,
        zero_fraction=_share(forward.off, n),
        nonfinite_fraction=_share(forward.nonfinite, n),
        units=_units(forward),
        output_gain=gain,
        gradient_state=state,
        time=_time(s),
        shrink=None
        if forward.magnitudes is None
        else shrink(forward.magnitudes, info.kind, relative),
        output_gain_median=median_gain,
        silent_fraction=silent,
    )


def without_units(sums: Sums) -> list[Skipped]:
    """Sites whose units could not be told from one call to the next."""
    reason = "its units lie on other axes, or are others, in other calls"
    return [
        Skipped(f"units of {name}", reason)
        for name, s in sums.sites.items()
        if any(c is not None and c.dim() == 0 for c in (s.forward.saturated, s.forward.off))
    ]


Spread = tuple[float | None, float | None]


def _over_samples(squares: Sequence[torch.Tensor]) -> list[Spread]:
    """Median gain and share of samples without a gradient, of sites with as many samples together.

    None where samples cannot be told apart: one number would be no distribution.
    """
    found: list[Spread] = [(None, None)] * len(squares)
    alike: dict[tuple[int, ...], list[int]] = {}
    for i, each in enumerate(squares):
        if len(each) > 1:
            alike.setdefault(tuple(each.shape), []).append(i)
    for shape, places in alike.items():
        together = max(1, _TOGETHER // math.prod(shape))
        for start in range(0, len(places), together):
            chosen = places[start : start + together]
            rows = torch.stack([squares[i] for i in chosen]).flatten(1)
            medians = log_medians(0.5 * torch.log10(rows))
            silent = (rows == 0).double().mean(dim=1).tolist()
            for i, pair in zip(chosen, zip(medians, silent, strict=True), strict=True):
                found[i] = pair
    return found


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _share(counts: torch.Tensor | None, numel: int) -> float | None:
    return float(counts.numpy().sum()) / numel if counts is not None and numel else None


def _rms(square: torch.Tensor | None, numel: int) -> float | None:
    if square is None or not numel:
        return None
    total = float(square)
    return None if math.isnan(total) else _finite(math.sqrt(total / numel))


def _gradient(s: SiteSums) -> tuple[State, float | None]:
    if not s.reached or not s.count:
        return State.NO_PATH, None
    energy = sum(s.energy) / s.count
    if not math.isfinite(energy):
        return State.NONFINITE, None
    return (State.VALUE, 0.5 * math.log10(energy)) if energy > 0 else (State.ZERO, None)


def _units(forward: ForwardStats) -> Units | None:
    counts = forward.saturated if forward.saturated is not None else forward.off
    if counts is None or not forward.per_unit or counts.dim() == 0:
        return None
    share = counts.numpy() / forward.per_unit
    shown = tuple(share[:_MAX_UNITS].tolist())
    if forward.saturated is not None:
        high = np.flatnonzero(share > UNIT_SATURATED_ABOVE).tolist()
        return Units(share.size, shown, len(high), None, tuple(high[:_MAX_INDICES]))
    dead = np.flatnonzero(share >= 1.0).tolist()
    return Units(share.size, None, None, len(dead), (), tuple(dead[:_MAX_INDICES]), shown)


def _time(s: SiteSums) -> tuple[TimeStep, ...]:
    if not s.loops:
        return ()
    steps = []
    for i, stats in enumerate(s.calls[:_MAX_STEPS]):
        energy = s.energy[i] / s.count if i < len(s.energy) and s.count else 0.0
        gain = 0.5 * math.log10(energy) if energy > 0 and math.isfinite(energy) else None
        steps.append(TimeStep(i, _share(stats.saturated, stats.numel), gain))
    return tuple(steps)


def heads(
    run: ForwardPass, sums: Sums, layouts: Sequence[int | None]
) -> tuple[tuple[Head, ...], tuple[Skipped, ...]]:
    """All heads with their ledgers, and what the ledgers left out; none without gradients."""
    if not sums.backward_passes:
        return (), ()
    time = _time_ledgers(sums)
    found, skipped = [], []
    for i, head in enumerate(run.heads):
        ledger, nonfinite = compile_ledger(sums.traces[i], time if i == 0 else ())
        if nonfinite:
            what = f"{nonfinite} samples x draws of the ledger of {head.name}"
            skipped.append(Skipped(what, "the gradient is not finite there"))
        if ledger.total is None:
            skipped.append(Skipped(f"total of {head.name}", _why_no_total(ledger, sums)))
        gain = _input_gain(sums.traces[i])
        found.append(Head(head.name, sums.shapes[i], layouts[i], head.entered_before, gain, ledger))
    return tuple(found), tuple(skipped)


def _why_no_total(ledger: Ledger, sums: Sums) -> str:
    entries = len(ledger.entries)
    if ledger.samples:
        return (
            "at the first hidden activation every gradient is 0: its units are off, or it is too "
            "small for its type"
        )
    if entries >= 2:
        return "no sample has a finite, non-zero gradient at the last hidden activation"
    hidden = [s for s in sums.sites.values() if s.info.role in (Role.HIDDEN, Role.PART)]
    if entries == 0 and len(hidden) < 2:
        return f"hidden activations: {len(hidden)}, and a ratio needs two"
    return "all hidden activations lie within one block: a ratio along the spine needs two"


def _input_gain(trace: Trace) -> float | None:
    """At the hidden activations nearest to the input, whichever branch ran first."""
    if not trace.elements:
        return None
    squares = list(trace.elements.values())[-1].inner.whole()
    return log_rms(squares[torch.isfinite(squares)])


def _time_ledgers(sums: Sums) -> tuple[TimeLedger, ...]:
    found = []
    for name, s in sums.sites.items():
        carries = s.info.gate in _THROUGH_TIME or s.info.role is Role.HIDDEN
        if s.loops and carries and s.count:
            ledger = time_ledger(name, [e / s.count for e in s.energy])
            if ledger is not None:
                found.append(ledger)
    return tuple(found)


def fan_in(module: torch.nn.Module | None, weight: torch.Tensor) -> int | None:
    """Inputs of one unit; None for vectors and embeddings."""
    kind = class_name(module) if module is not None else ""
    if weight.dim() < 2 or not weight.numel() or kind in ("Embedding", "EmbeddingBag"):
        return None
    if kind.startswith("ConvTranspose"):
        groups = int(getattr(module, "groups", 1))
        return int(weight.shape[0] // groups * weight[0, 0].numel())
    return int(weight[0].numel())


def _with_state(name: str, inputs: int | None, tensors: Mapping[str, torch.Tensor]) -> int | None:
    """Input and state of a recurrent cell are added up, so its input weights start with the size
    that the state asks for. Told by names; ONNX, which keeps none, has it in its origins."""
    state = tensors.get(name.replace("weight_ih", "weight_hh")) if "weight_ih" in name else None
    if inputs is None or state is None or state.dim() != 2:
        return inputs
    return max(inputs, state.shape[1])


def parameters(
    names: Names,
    owners: Mapping[str, torch.nn.Module],
    found_sites: Sequence[Site],
    trainable: Mapping[str, bool],
    gradients: Mapping[str, GradientStats] | None,
    losses: Mapping[str, GradientStats] | None,
    made: Mapping[str, torch.Tensor | None],
    used: Set[str] | None = None,
) -> tuple[Parameter, ...]:
    """All parameters with their magnitudes.

    ``made``: from :func:`gradscope.probe.reparam.made_weights`. A weight that is made of parameters
    lends its init_ratio to the one that has its shape. ``used``: those that the forward pass took.
    """
    relu_fed = {p for s in found_sites if s.kind in RELU_LIKE for p in s.parameters}
    places = [_place(name, names, owners, made) for name in names.tensors]
    gains = [math.sqrt(2.0) if name in relu_fed else 1.0 for name in names.tensors]
    each = zip(names.tensors.items(), places, gains, strict=True)
    units = {name: origin.units for name, origin in names.origins.items()}
    weights = stats_of_all(
        Weight(tensor, inputs, gain, units.get(name, 0))
        for (name, tensor), (_, inputs), gain in each
    )
    result = []
    rows = zip(names.tensors.items(), places, gains, weights, strict=True)
    for (name, tensor), (path, inputs), gain, weight in rows:
        whole = made.get(name, tensor)
        if whole is not tensor and whole is not None:
            ratio = init_ratio(weight_stats(whole, None, 1.0).rms or 0.0, inputs, gain)
            weight = replace(weight, init_ratio=ratio)
        probe = gradients.get(name) if gradients is not None else None
        loss = losses.get(name) if losses is not None else None
        result.append(
            Parameter(
                name=name,
                names=tuple(names.all[name]),
                layer=path,
                shape=tuple(tensor.shape),
                numel=tensor.numel(),
                dtype=str(tensor.dtype).removeprefix("torch."),
                trainable=trainable.get(name, False),
                fan_in=inputs,
                weight=weight,
                gradient=probe,
                loss_gradient=loss,
                grad_to_weight_ratio=_ratio(loss or probe, weight, tensor.numel()),
                used=None if used is None else name in used,
            )
        )
    return tuple(result)


def _place(
    name: str,
    names: Names,
    owners: Mapping[str, torch.nn.Module],
    made: Mapping[str, torch.Tensor | None],
) -> tuple[str, int | None]:
    """Layer of a parameter, and the inputs of one of its units."""
    origin = names.origins.get(name)
    if origin is not None:
        return origin.layer, origin.fan_in
    path, whole = owner_of(name)[0], made.get(name, names.tensors[name])
    inputs = fan_in(owners.get(path), whole) if whole is not None else None
    return path, _with_state(name, inputs, names.tensors)


def _ratio(gradient: GradientStats | None, weight: WeightStats, numel: int) -> float | None:
    if gradient is None or gradient.norm is None or not weight.rms:
        return None
    return _finite(gradient.norm / (weight.rms * math.sqrt(numel)))


def layers(
    found: Sequence[Parameter],
    found_sites: Sequence[Site],
    owners: Mapping[str, torch.nn.Module],
    origins: Mapping[str, Origin] | None = None,
) -> tuple[Layer, ...]:
    """Modules that own parameters, with the norms of all they own."""
    kinds = {origin.layer: origin.kind for origin in reversed(list((origins or {}).values()))}
    grouped: dict[str, list[Parameter]] = {}
    for parameter in found:
        grouped.setdefault(parameter.layer, []).append(parameter)
    result = []
    for name, mine in grouped.items():
        owned = {p.name for p in mine}
        numel = sum(p.numel for p in mine)
        probe = _joint([p.gradient for p in mine])
        loss = _joint([p.loss_gradient for p in mine])
        squares = [p.weight.rms**2 * p.numel for p in mine if p.weight.rms is not None]
        root = math.sqrt(numel) if numel else 1.0
        result.append(
            Layer(
                name=name,
                kind=_class_of(owners.get(name)) or kinds.get(name, ""),
                parameters=tuple(p.name for p in mine),
                sites=tuple(s.id for s in found_sites if owned & set(s.parameters)),
                numel=numel,
                grad_norm=probe,
                grad_rms=None if probe is None else probe / root,
                loss_grad_norm=loss,
                loss_grad_rms=None if loss is None else loss / root,
                weight_rms=math.sqrt(sum(squares)) / root if squares else None,
            )
        )
    return tuple(result)


def _class_of(module: torch.nn.Module | None) -> str:
    return class_name(module).removeprefix("Parametrized") if module is not None else ""


def _joint(stats: Sequence[GradientStats | None]) -> float | None:
    norms = [s.norm for s in stats if s is not None and s.norm is not None]
    return _finite(math.sqrt(sum(n * n for n in norms))) if norms else None
