"""What was measured of parameters and of the layers that own them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gradscope.measurements.histograms import Histogram, Octaves
from gradscope.measurements.states import State


@dataclass(frozen=True)
class GradientStats:
    """Magnitudes of one gradient tensor.

    Loss-free gradients are normalised to one sample: the gradient of ``sum_n v_n . f(x_n)`` with
    unit-norm random cotangents v_n, divided by sqrt(samples). Loss gradients are those of the mean
    loss over the sample.

    Attributes:
        state: value, zero (all elements are 0), nonfinite (some element is), no-path.
        numel: number of elements; 0 with ``no-path``.
        norm: L2 norm over the finite elements.
        rms: norm / sqrt(numel).
        max_abs: largest magnitude.
        quantiles: of |g| over elements, keys ``q01 q05 q25 q50 q75 q95 q99``; from a histogram of
            the leading bits, relative error at most :attr:`quantile_error`, but for float32's
            subnormal numbers.
        quantile_error: the bound just named.
        zero_fraction: share of elements that are exactly 0.
        subnormal_fraction: share that is subnormal in the tensor's own type.
        nonfinite_fraction: share that is NaN or infinite.
        fp16_underflow_fraction: share, not 0 here, that would round to 0 in float16; None in a
            gradient of that type, where what it loses is 0 already.
        bf16_underflow_fraction: the same for bfloat16.
        octaves: histogram of |g|; None if no element is finite and not 0.
    """

    state: State
    numel: int = 0
    norm: float | None = None
    rms: float | None = None
    max_abs: float | None = None
    quantiles: Mapping[str, float] | None = None
    quantile_error: float | None = None
    zero_fraction: float | None = None
    subnormal_fraction: float | None = None
    nonfinite_fraction: float | None = None
    fp16_underflow_fraction: float | None = None
    bf16_underflow_fraction: float | None = None
    octaves: Octaves | None = None


@dataclass(frozen=True)
class Outlier:
    """A weight, or all weights of one unit, far larger than the rest of the tensor.

    Attributes:
        place: index as torch takes it: ``[17,3]`` one element, ``[17,:]`` a unit (``[:,17]`` where
            units lie on the other axis, as ONNX has it).
        value: of the element; root mean square of a unit.
        score: robust z: |value| / (1.4826 x median of |w|) for an element; over the median of all
            units' root mean squares for a unit.
    """

    place: str
    value: float
    score: float


@dataclass(frozen=True)
class WeightStats:
    """Magnitudes of one parameter's values.

    Attributes:
        state: value, zero or nonfinite.
        rms: L2 norm over sqrt(numel), finite elements only.
        max_abs: largest finite magnitude.
        spectral_norm: largest singular value of the matrix (out, everything else), by power
            iteration; None for vectors.
        spectral_tolerance: relative error that is aimed at: the iteration ends with a step that
            changes it by a tenth of that, or after 80 steps.
        init_ratio: rms over gain / sqrt(fan_in), gain sqrt(2) before ReLU-like activations, else 1.
        zero_fraction: share of elements that are exactly 0.
        nonfinite_fraction: share of elements that are NaN or infinite.
        outliers: the largest elements and the largest units, four of each at most, by score; the
            median of more than 262,144 elements is that of evenly spread ones.
        histogram: of the finite elements, with their signs; None if there are none.
    """

    state: State
    rms: float | None = None
    max_abs: float | None = None
    spectral_norm: float | None = None
    spectral_tolerance: float | None = None
    init_ratio: float | None = None
    zero_fraction: float | None = None
    nonfinite_fraction: float | None = None
    outliers: tuple[Outlier, ...] = ()
    histogram: Histogram | None = None


@dataclass(frozen=True)
class Parameter:
    """One parameter, counted once even where it is tied.

    Attributes:
        name: its first dotted name.
        names: all of its names (tied parameters have several).
        layer: dotted name of the module that owns it ("" for the root).
        shape: its shape.
        numel: number of elements.
        dtype: e.g. ``float32``.
        trainable: requires_grad as saved.
        fan_in: inputs of one unit, of a recurrent cell's input weights at least its state; None for
            vectors.
        weight: magnitudes of its values.
        gradient: of the loss-free probe; None if no gradient was measured at all.
        loss_gradient: of the loss; None without labels.
        grad_to_weight_ratio: loss_gradient.norm (else gradient.norm) over the weight's norm.
        used: whether an operation of the forward pass took it; None if it did not run.
    """

    name: str
    names: tuple[str, ...]
    layer: str
    shape: tuple[int, ...]
    numel: int
    dtype: str
    trainable: bool
    fan_in: int | None
    weight: WeightStats
    gradient: GradientStats | None = None
    loss_gradient: GradientStats | None = None
    grad_to_weight_ratio: float | None = None
    used: bool | None = None


@dataclass(frozen=True)
class Layer:
    """One module that owns parameters.

    Attributes:
        name: dotted path ("" for the root).
        kind: class name, e.g. ``Linear``.
        parameters: names.
        sites: ids of the sites that its parameters feed.
        numel: number of elements of its parameters.
        grad_norm: L2 over all its parameters, loss-free.
        grad_rms: grad_norm over sqrt(numel): compare layers by this.
        loss_grad_norm, loss_grad_rms: the same of the loss.
        weight_rms: root mean square of all its parameters.
    """

    name: str
    kind: str
    parameters: tuple[str, ...]
    sites: tuple[str, ...]
    numel: int
    grad_norm: float | None = None
    grad_rms: float | None = None
    loss_grad_norm: float | None = None
    loss_grad_rms: float | None = None
    weight_rms: float | None = None
