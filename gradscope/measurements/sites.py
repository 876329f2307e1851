"""What was measured of activations."""

from __future__ import annotations

from dataclasses import dataclass

from gradscope.measurements.states import Role, State


@dataclass(frozen=True)
class Units:
    """Shares per unit of one site; arrays are bounded, ``count`` is not.

    Attributes:
        count: number of units (channels of a convolution, features of a linear layer).
        saturated_share: per unit, share of samples and positions that are saturated; None for
            activations that do not saturate. At most 1024 units, the first ones.
        saturated_count: units whose share exceeds 0.95, over all units.
        dead_count: units that are 0 for every sample and position (ReLU-like); None otherwise.
        saturated_indices: the first units above 0.95.
        dead_indices: the first dead units.
        off_share: per unit, share of samples and positions for which it is 0 (ReLU-like); None
            otherwise. At most 1024 units, the first ones.
    """

    count: int
    saturated_share: tuple[float, ...] | None = None
    saturated_count: int | None = None
    dead_count: int | None = None
    saturated_indices: tuple[int, ...] = ()
    dead_indices: tuple[int, ...] = ()
    off_share: tuple[float, ...] | None = None


@dataclass(frozen=True)
class TimeStep:
    """One call of a recurrent site.

    Attributes:
        step: 0 for the first call.
        saturated_fraction: of this call.
        output_gain: log10 of the RMS over samples and draws of |dL/dz| at this call.
    """

    step: int
    saturated_fraction: float | None
    output_gain: float | None


@dataclass(frozen=True)
class Site:
    """One activation, identified by the parameters that feed it.

    Attributes:
        id: stable identity, e.g. ``layers.3/tanh`` or ``lstm.l0/forget``; the same in eager code,
            scripts, exported programs.
        kind: tanh, sigmoid, relu, ...
        role: hidden, gate, output or part.
        gate: name of the recurrent gate (input, forget, cell, output, state; reset, update, new).
        layer: dotted name of the module whose parameters feed it.
        parameters: names of these parameters.
        calls: how often it ran in one forward pass.
        numel: activations seen over all samples and calls.
        saturated_fraction: share with relative derivative < 0.1; None if it cannot saturate.
        mean_relative_derivative: mean of phi'(z) / phi'_0; None where not defined.
        pre_activation_rms: root mean square of z.
        activation_rms: root mean square of the output.
        sample_variance_ratio: between-sample variance over mean square of the output; ~0 when the
            features have collapsed. None with a single sample.
        zero_fraction: share of outputs that are exactly 0.
        nonfinite_fraction: share of pre-activations that are NaN or infinite.
        units: shares per unit.
        output_gain: log10 of the RMS over samples and draws of |dL/dz| under a unit cotangent at
            the output; None where no gradient arrived.
        gradient_state: value, zero, nonfinite or no-path of dL/dz; None where gradients were not
            measured.
        time: per call, for sites that run more than once in one pass (at most 256 steps).
        shrink: the least alpha >= 1 for which the mean of phi'(z / alpha) / phi'_0 is 0.8 or more:
            by how much its pre-activations are too large. Read from a histogram of |z|: to half a
            bin (7 %) where all are alike, to .3 % where they are spread and the derivative smooth.
            None if it cannot saturate.
        output_gain_median: like ``output_gain``, but log10 of the median over samples and draws of
            |dL/dz|; None where it is 0 or samples cannot be told apart.
        silent_fraction: share of samples and draws for which dL/dz is exactly 0.
    """

    id: str
    kind: str
    role: Role
    gate: str | None
    layer: str
    parameters: tuple[str, ...]
    calls: int
    numel: int
    saturated_fraction: float | None
    mean_relative_derivative: float | None
    pre_activation_rms: float | None
    activation_rms: float | None
    sample_variance_ratio: float | None
    zero_fraction: float | None
    nonfinite_fraction: float | None
    units: Units | None
    output_gain: float | None
    gradient_state: State | None
    time: tuple[TimeStep, ...] = ()
    shrink: float | None = None
    output_gain_median: float | None = None
    silent_fraction: float | None = None
