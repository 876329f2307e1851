"""Everything that was measured, as plain frozen numbers. Imports neither torch nor numpy.

A number that could not be measured is ``None``, and a :class:`~gradscope.findings.Skipped` says
why; it is never 0. A *decade* is a factor of ten: gains in decades are log10.
Joined by stable ids: a site by :attr:`Site.id`, a parameter by :attr:`Parameter.name`, a layer by
:attr:`Layer.name`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from gradscope.findings import Skipped


class State(StrEnum):
    """What a statistic of a tensor stands for; a value only where state is ``value``."""

    VALUE = "value"
    ZERO = "zero"
    NONFINITE = "nonfinite"
    NO_PATH = "no-path"


class Role(StrEnum):
    """What an activation is for. Only ``hidden`` ones enter the ledger and the verdict."""

    HIDDEN = "hidden"
    GATE = "gate"
    OUTPUT = "output"
    PART = "part"


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
            the leading bits, relative error at most :attr:`quantile_error`.
        quantile_error: the bound just named.
        zero_fraction: share of elements that are exactly 0.
        subnormal_fraction: share that is subnormal in the tensor's own type.
        nonfinite_fraction: share that is NaN or infinite.
        fp16_underflow_fraction: share, not 0 here, that would round to 0 in float16.
        bf16_underflow_fraction: the same for bfloat16.
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


@dataclass(frozen=True)
class Outlier:
    """A weight, or all weights of one unit, far larger than the rest of the tensor.

    Attributes:
        place: index as torch takes it: ``[17,3]`` one element, ``[17,:]`` a unit.
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
        spectral_tolerance: relative change at which the iteration was stopped.
        init_ratio: rms over gain / sqrt(fan_in), gain sqrt(2) before ReLU-like activations, else 1.
        zero_fraction: share of elements that are exactly 0.
        nonfinite_fraction: share of elements that are NaN or infinite.
        outliers: the largest elements and the largest units, four of each at most, by score; the
            median of more than 262,144 elements is that of evenly spread ones.
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
        fan_in: inputs of one unit; None for vectors.
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
    """

    count: int
    saturated_share: tuple[float, ...] | None = None
    saturated_count: int | None = None
    dead_count: int | None = None
    saturated_indices: tuple[int, ...] = ()
    dead_indices: tuple[int, ...] = ()


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
        gradient_state: value, zero, nonfinite or no-path of dL/dz.
        time: per call, for sites that run more than once in one pass (at most 256 steps).
        shrink: the least alpha >= 1 for which the mean of phi'(z / alpha) / phi'_0 is 0.8 or more:
            by how much its pre-activations are too large. Read from a histogram of |z|, to 2 %;
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
    gradient_state: State
    time: tuple[TimeStep, ...] = ()
    shrink: float | None = None
    output_gain_median: float | None = None
    silent_fraction: float | None = None


@dataclass(frozen=True)
class LocalEntry:
    """One site inside a block with branches, against the gradient at the block's output.

    Attributes:
        site: id of the site.
        gain: log10 of the RMS gain from the block's output to dL/dz of the site; None if no
            gradient arrived.
        activation: log10 |dL/dz| / (phi'_0 |dL/da|), median over samples.
        slope: log10 phi'_0.
    """

    site: str
    gain: float | None
    activation: float | None
    slope: float | None


@dataclass(frozen=True)
class LedgerEntry:
    """What happens to the gradient between one hidden site and the next one towards the output.

    All in decades, medians over samples and draws; weight + slope + activation = gain per sample
    exactly, and of the medians nearly.

    Attributes:
        site: id of the site (of the first one, if the block has branches).
        label: what to print: the site's layer and kind, or ``a + b`` for a block with branches.
        kind: kind of the activation, or ``block``.
        gain: log10 |delta_l| / |delta_{l+1}|.
        weight: the part of weights, norms, pooling: everything between two sites.
        slope: log10 of the activation's largest slope.
        activation: log10 |delta| / (phi'_0 |u|): the derivative.
        cumulative: decades left at this site: RMS gain from here to the last hidden site.
        cumulative_median: the same of the median sample.
        branches: local ledger, if more than one path leads through the block.
        bypass: a path without hidden site leads around the block (a skip connection).
    """

    site: str
    label: str
    kind: str
    gain: float | None
    weight: float | None
    slope: float | None
    activation: float | None
    cumulative: float | None
    cumulative_median: float | None = None
    branches: tuple[LocalEntry, ...] = ()
    bypass: bool = False


@dataclass(frozen=True)
class TimeLedger:
    """Gradient through time of one recurrent site.

    Attributes:
        site: id of the site.
        steps: number of calls.
        decades_per_step: slope of log10 |dL/dz_t| from the step with the largest gradient back to
            the first, per step.
        total: log10 RMS gain, first step over the step with the largest gradient.
        output_at: steps whose gradient was compared (first, largest).
        growth: log10 RMS gain, the step with the largest gradient over the last that has one.
    """

    site: str
    steps: int
    decades_per_step: float | None
    total: float | None
    output_at: tuple[int, int]
    growth: float | None = None


@dataclass(frozen=True)
class Ledger:
    """Where the gradient goes between output and input of one head, in decades (log10).

    Attributes:
        total: log10 of the RMS gain over samples, first hidden site over last; None with fewer
            than two hidden sites on the spine.
        total_error: standard error over the draws.
        median: log10 of the median gain over samples.
        activation, slope, weight: sums over entries of per-layer medians.
        samples: samples times draws that entered.
        zero_denominators: samples times draws left out since the gradient at the last site was 0.
        cuts: number of cut tensors.
        entries: from the output's side to the input's, i.e. the last hidden site first.
        time: ledgers through time.
    """

    total: float | None
    total_error: float | None
    median: float | None
    activation: float | None
    slope: float | None
    weight: float | None
    samples: int
    zero_denominators: int
    cuts: int
    entries: tuple[LedgerEntry, ...] = ()
    time: tuple[TimeLedger, ...] = ()

    @property
    def gain(self) -> float | None:
        """g = min(total, median), the number that the verdict compares."""
        known = [v for v in (self.total, self.median) if v is not None]
        return min(known) if known else None


@dataclass(frozen=True)
class Head:
    """One output that received a cotangent.

    Attributes:
        name: ``output``, ``output[1]``, ``output.logits``.
        shape: with the sample axis of the first batch.
        batch_axis: None where samples are coupled or the axis is unknown.
        entered_before: what the cotangent skipped (softmax, sigmoid, normalisation), if anything.
        input_gain: log10 RMS |dL/dz| at the first hidden site under a unit cotangent.
        ledger: of this head.
    """

    name: str
    shape: tuple[int, ...]
    batch_axis: int | None
    entered_before: str | None
    input_gain: float | None
    ledger: Ledger


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


@dataclass(frozen=True)
class Skill:
    """How much better than guessing the model is.

    Attributes:
        value: 1 - CE / H(labels), or 1 - MSE / variance.
        error: its standard error over samples.
        loss: mean loss of the sample.
        loss_kind: cross-entropy, bce, mse, nll or a user's function.
        how: how the loss was decided.
        accuracy: share of right answers; None for regression.
        held_out: whether it was measured on ``--val`` data.
        samples: how many.
        chance: accuracy of always giving the commonest answer; None for regression.
        accuracy_skill: (accuracy - chance) / (1 - chance): unlike ``value`` it does not change with
            the scale of the logits; None for regression.
        accuracy_error: its standard error over samples.
    """

    value: float | None
    error: float | None
    loss: float | None
    loss_kind: str
    how: str
    accuracy: float | None
    held_out: bool
    samples: int
    chance: float | None = None
    accuracy_skill: float | None = None
    accuracy_error: float | None = None


@dataclass(frozen=True)
class Arm:
    """One of the two copies of a trial, scored on held-out data while it trains.

    Attributes:
        steps: of the optimiser, at which it was scored; the first is 0.
        score: accuracy, or skill for a regression, at each of them; None where it was not finite.
        loss: mean held-out loss at each of them.
        stopped: why it ended early; None if it did not.
    """

    steps: tuple[int, ...]
    score: tuple[float | None, ...]
    loss: tuple[float | None, ...]
    stopped: str | None = None

    @property
    def last(self) -> float | None:
        """The score at the end."""
        return self.score[-1] if self.score else None


@dataclass(frozen=True)
class Trial:
    """A counterfactual: the model trained as it is, and trained after a repair.

    Attributes:
        steps: of the optimiser, for either copy.
        how: optimiser, rate and batch.
        repair: what was done to the second copy before it was trained.
        layers: that the repair changed.
        metric: accuracy or skill.
        held_out: what was scored on.
        samples: how many of them.
        chance: score of guessing the most frequent answer, or the mean.
        untreated, repaired: the two copies.
        gain: by how much the repaired copy's last score beats the untreated one's best, as a share
            of what is above chance; None if either could not be scored.
        error: standard error of ``gain``, paired over the held-out samples.
    """

    steps: int
    how: str
    repair: str
    layers: tuple[str, ...]
    metric: str
    held_out: str
    samples: int
    chance: float | None
    untreated: Arm
    repaired: Arm
    gain: float | None
    error: float | None


@dataclass(frozen=True)
class ModelInfo:
    """The model as loaded. ``parameters`` counts elements; ``notes`` say what loading changed."""

    path: str
    format: str
    parameters: int
    trainable: int
    class_name: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class SampleInfo:
    """The data that were run through the model."""

    path: str | None
    samples: int
    available: int | None
    synthetic: bool
    labels: bool
    inputs: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    validation: str | None = None
    validation_samples: int | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Feature:
    """One column, or channel, of an input over all samples and positions."""

    index: int
    mean: float | None
    sd: float | None


@dataclass(frozen=True)
class InputStats:
    """Scale of one floating-point input as it enters the model.

    Attributes:
        name: of the input.
        features: size of its feature axis: channels of images, else the last axis.
        rms: root mean square of its finite elements.
        mean: of these.
        typical_rms: median over features of each one's root mean square.
        nonfinite_fraction: share of elements that are NaN or infinite.
        largest: the features of the largest root mean square, largest first, at most 32; mean and
            sd are None for one that holds a value that is not finite.
    """

    name: str
    features: int
    rms: float | None
    mean: float | None
    typical_rms: float | None
    nonfinite_fraction: float
    largest: tuple[Feature, ...] = ()


@dataclass(frozen=True)
class FirstNonfinite:
    """The first operation whose result is not finite although all that it was given is.

    Attributes:
        operation: as torch calls it, e.g. ``log``.
        after: the last parameter used before it; "" if none was.
        backward: whether it stands in the backward pass.
    """

    operation: str
    after: str
    backward: bool


@dataclass(frozen=True)
class Parity:
    """How well outputs agree with those of the runtime that a model was made for.

    Attributes:
        runtime: its name and version.
        samples: sizes of the batches that were compared.
        max_error: largest |a - b|.
        max_share: largest |a - b| / (atol + rtol |b|); at most 1.
        rtol, atol: the tolerances.
    """

    runtime: str
    samples: tuple[int, ...]
    max_error: float
    max_share: float
    rtol: float
    atol: float


@dataclass(frozen=True)
class RunInfo:
    """How it was measured.

    ``parity``: with the runtime that the model was made for; None where torch is that runtime.
    """

    mode: str
    seed: int
    draws: int
    batch_size: int
    device: str
    dtype: str
    torch: str
    forward_passes: int
    backward_passes: int
    batch_statistics: tuple[str, ...] = ()
    parity: Parity | None = None


@dataclass(frozen=True)
class Measurements:
    """Everything that was measured of one model on one sample.

    ``heads[0]`` is the head that the verdict reads. Empty ``heads`` means that no gradient was
    measured (a state_dict without its architecture): then only ``parameters`` speak.
    ``skill`` is that of the held-out data, if there are any, and ``sample_skill`` then that of the
    sample.
    """

    model: ModelInfo
    sample: SampleInfo
    run: RunInfo
    heads: tuple[Head, ...] = ()
    layers: tuple[Layer, ...] = ()
    sites: tuple[Site, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    skill: Skill | None = None
    sample_skill: Skill | None = None
    trial: Trial | None = None
    skipped: tuple[Skipped, ...] = ()
    inputs: tuple[InputStats, ...] = ()
    first_nonfinite: FirstNonfinite | None = None

    @property
    def ledger(self) -> Ledger | None:
        """The ledger of the first head."""
        return self.heads[0].ledger if self.heads else None

    @property
    def hidden_saturation(self) -> float | None:
        """``sat`` of the model: mean saturated fraction over its hidden bounded sites."""
        shares = [
            s.saturated_fraction
            for s in self.sites
            if s.role is Role.HIDDEN and s.saturated_fraction is not None
        ]
        return sum(shares) / len(shares) if shares else None
