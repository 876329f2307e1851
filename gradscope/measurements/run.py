"""What was run, on what, and how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


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
        max_share: largest |a - b| / (atol + rtol |b|), at most 1; where a model amplifies rounding,
            what that may make of the outputs is tolerated beside (``loading/onnx/parity.py``).
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
    ``outputs``: names of the outputs that were chosen; empty where all are looked at.
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
    outputs: tuple[str, ...] = ()
