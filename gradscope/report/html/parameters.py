"""Tables of a page: parameters and activations, one row each."""

from __future__ import annotations

from gradscope.diagnosis import Inspection
from gradscope.findings import Severity
from gradscope.measurements import GradientStats, Measurements, Parameter, Site, State
from gradscope.report.html.tables import Cell, Column, Table, missing, why
from gradscope.report.text import safe

_STATES = {
    State.ZERO: "every element is 0",
    State.NONFINITE: "NaN or infinite in part",
    State.NO_PATH: "no path leads there from the output",
}


def parameter_table(inspection: Inspection) -> Table:
    """All parameters, in the order of the model."""
    m = inspection.measurements
    table = Table(
        "parameters",
        "Parameters",
        (
            Column("Parameter", numeric=False),
            Column("Shape"),
            Column("Gradient rms", meaning="root mean square, random cotangents of unit size"),
            Column("Loss gradient rms", meaning="root mean square, of the mean loss"),
            Column("Zero gradient", meaning="share of elements whose gradient is exactly 0"),
            Column("Weight rms"),
            Column("max |w|"),
            Column("Spectral norm", meaning="largest singular value"),
            Column("Init ratio", meaning="weight rms over 1 / sqrt(fan-in)"),
            Column("Gradient / weight", meaning="norm of the gradient over that of the weights"),
            Column("Findings", numeric=False),
        ),
        sortable=True,
    )
    named = _named(inspection)
    for p in m.parameters:
        _parameter(table, m, p, named.get(p.name, ""))
    return table


def _parameter(table: Table, m: Measurements, p: Parameter, findings: str) -> None:
    w = p.weight
    reason = "not all weights are finite" if w.state is State.NONFINITE else "a vector has none"
    table.add(
        Cell(safe(p.name)),
        Cell("×".join(map(str, p.shape)) or "scalar", str(p.numel)),
        _rms(table, p.gradient, why(m, "gradient", otherwise="no backward pass was run")),
        _rms(table, p.loss_gradient, no_loss(m)),
        table.share(p.gradient.zero_fraction if p.gradient else None, _no_gradient(m, p.gradient)),
        table.number(w.rms, "it has no elements"),
        table.number(w.max_abs, "it has no elements"),
        table.number(w.spectral_norm, reason),
        table.number(w.init_ratio, "it has no fan-in: a vector or an embedding"),
        table.number(p.grad_to_weight_ratio, "no gradient, or all weights are 0"),
        Cell(findings),
    )


def _rms(table: Table, gradient: GradientStats | None, reason: str) -> Cell:
    if gradient is None:
        return missing(reason)
    if gradient.state is State.ZERO:
        return Cell("0")
    if gradient.state is not State.VALUE:
        return missing(_STATES[gradient.state])
    return table.number(gradient.rms, reason)


def _no_gradient(m: Measurements, gradient: GradientStats | None) -> str:
    if gradient is not None and gradient.state in _STATES:
        return _STATES[gradient.state]
    return why(m, "gradient", otherwise="no backward pass was run")


def no_loss(m: Measurements) -> str:
    """Why there is no gradient of a loss."""
    fallback = "the data have no labels" if not m.sample.labels else "the loss was not taken"
    return why(m, "loss", otherwise=fallback)


def _named(inspection: Inspection) -> dict[str, str]:
    """Parameter -> codes of the findings that name it, information left out."""
    names = {n: p.name for p in inspection.measurements.parameters for n in p.names}
    found: dict[str, list[str]] = {}
    for finding in inspection.findings:
        if finding.severity is Severity.INFORMATION:
            continue
        place = finding.where.partition("[")[0]
        if place in names:
            codes = found.setdefault(names[place], [])
            if finding.code not in codes:
                codes.append(finding.code)
    return {name: ", ".join(codes) for name, codes in found.items()}


def activation_table(m: Measurements) -> Table:
    """All activations, in the order in which they ran."""
    table = Table(
        "activations",
        "Activations",
        (
            Column("Activation", numeric=False),
            Column("Kind", numeric=False),
            Column("Role", numeric=False),
            Column("Saturated", meaning="derivative below a tenth of its largest value"),
            Column("Relative derivative", meaning="mean of derivative / largest derivative"),
            Column("Input rms", meaning="root mean square of what goes in"),
            Column("Output rms"),
            Column("Too large by", meaning="the factor by which its inputs are too large; 1: fits"),
            Column("Units"),
            Column("Units saturated", meaning="for more than 95% of samples and positions"),
            Column("Units dead", meaning="0 for every sample and position"),
            Column("Gradient, decades", meaning="log10 of the gradient here, unit cotangent"),
        ),
        sortable=True,
    )
    for s in m.sites:
        _activation(table, m, s)
    return table


def _no_arrival(m: Measurements, s: Site) -> str:
    if s.gradient_state is None:
        return why(m, "gradient", otherwise="no backward pass was run")
    return _STATES.get(s.gradient_state, "no gradient arrived")


def _activation(table: Table, m: Measurements, s: Site) -> None:
    bounded = "this kind cannot saturate"
    units, no_units = s.units, "its units cannot be told apart, or have nothing to count"
    dead = "only units of the kind of ReLU die" if units is not None else no_units
    full = bounded if units is not None else no_units
    table.add(
        s.id,
        s.kind,
        f"{s.role.value} ({s.gate})" if s.gate else s.role.value,
        table.share(s.saturated_fraction, bounded),
        table.number(s.mean_relative_derivative, "not defined for this kind"),
        table.number(s.pre_activation_rms, "not every value was finite, or none was seen"),
        table.number(s.activation_rms, "not every value was finite, or none was seen"),
        table.number(s.shrink, bounded),
        Cell(f"{units.count}") if units is not None else missing(no_units),
        table.number(units.saturated_count if units else None, full, digits=8),
        table.number(units.dead_count if units else None, dead, digits=8),
        table.decades(s.output_gain, _no_arrival(m, s)),
    )
