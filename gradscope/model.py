"""What loading hands on: a model that is ready to run, and batches to run it on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import torch

    from gradscope.measurements import Parity
    from gradscope.optimisers import Optimiser


@dataclass(frozen=True)
class Input:
    """One input that a model declares by itself, as exported programs and ONNX graphs do.

    Attributes:
        name: as the model calls it.
        shape: samples first; None for a size that is free; None as a whole if nothing is declared.
        dtype: None if nothing is declared.
        required: whether the model runs without it.
        plain: declared as a number, a word or a truth value, and not as a tensor.
    """

    name: str
    shape: tuple[int | None, ...] | None = None
    dtype: torch.dtype | None = None
    required: bool = True
    plain: bool = False


@dataclass(frozen=True)
class Origin:
    """Where a parameter belongs, in models whose names do not tell.

    Attributes:
        layer: name of its layer.
        kind: of the layer: ``Conv``, ``MatMul``.
        fan_in: inputs of one unit; None for vectors and tables.
        units: axis on which its units lie.
    """

    layer: str
    kind: str
    fan_in: int | None
    units: int = 0


@dataclass(frozen=True)
class Exchange:
    """Logistic activations of a model that can be made tanh, all of them together.

    Attributes:
        count: how many the file holds.
        swap: makes them tanh (True) or logistic again (False), in the loaded module.
    """

    count: int
    swap: Callable[[bool], None]


Products = Mapping[str, tuple[float, float]]
"""Node of a file -> what is multiplied before and behind it."""


@dataclass(frozen=True)
class Edit:
    """What is different in a file beside its numbers.

    Attributes:
        tanh: its logistic activations become tanh: those of a form that ``LoadedModel.exchange``
            says can be.
        products: factors before and behind nodes, where ``LoadedModel.explicit`` says they can be.
    """

    tanh: bool = False
    products: Products = field(default_factory=dict)


@dataclass(frozen=True)
class Explicit:
    """Products that a file can hold before and behind its nodes.

    Attributes:
        watch: has the name of every node that is an activation, and its output, told from then on
            while the model runs; None: no more.
        put: makes the module run with these factors, node -> (before, behind), and no others.
    """

    watch: Callable[[Callable[[str, torch.Tensor], None] | None], None]
    put: Callable[[Products], None]


@dataclass(frozen=True)
class LoadedModel:
    """A model as it came out of its file.

    Attributes:
        path: the file, as the user named it.
        format: what it was recognised as (``PyTorch module``, ``state_dict + architecture``, ...).
        module: the runnable model, or None where only weights are known.
        state: the tensors by name, where there is no runnable model.
        notes: what loading did that the user should know (prefixes stripped, key chosen).
        missing: what could not be examined and why, as (what, reason).
        inputs: what the model declares, in the order of its positional arguments; None: the
            signature of ``forward`` tells.
        shared: inputs without samples, passed by name; zeros where the call leaves them out.
        given: values of shared inputs that the user named.
        batch: the only number of samples that it takes at once; None: any.
        origins: layers of the parameters, by name; none: the dotted names tell.
        verify: compares the model's outputs on a sample with those of the runtime that it was
            made for; raises :class:`~gradscope.errors.ProbeError` where they differ. None where
            torch is that runtime.
        exchange: of its logistic activations; or why a file of this form allows none.
        placed: its parameters are where they are to be, on more devices than one perhaps.
        optimiser: with which it was trained, where the file tells; or why what it tells is of no
            use.
        explicit: of products of its own; None where a file of this form can have none.
    """

    path: str
    format: str
    module: torch.nn.Module | None
    state: Mapping[str, torch.Tensor] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    missing: tuple[tuple[str, str], ...] = ()
    inputs: tuple[Input, ...] | None = None
    shared: tuple[Input, ...] = ()
    given: Mapping[str, torch.Tensor] = field(default_factory=dict)
    batch: int | None = None
    origins: Mapping[str, Origin] = field(default_factory=dict)
    verify: Callable[[Sample], Parity] | None = None
    exchange: Exchange | str = "activations stand in the architecture's code, not in the file"
    placed: bool = False
    optimiser: Optimiser | str | None = None
    explicit: Explicit | None = None


@dataclass(frozen=True)
class Given:
    """What a program has in memory, in place of files; None where a file is named.

    Attributes:
        model: to be examined where it is, and left as it is.
        data, val: arrays or tensors (x, (x, y) or by name), batches, a dataset or a loader.
    """

    model: torch.nn.Module | None = None
    data: Any = None
    val: Any = None

    @property
    def is_empty(self) -> bool:
        """Whether everything is in files."""
        return self.model is None and self.data is None and self.val is None


@dataclass(frozen=True)
class Batch:
    """Some samples, ready to call the model: ``module(*args, **kwargs)``.

    Attributes:
        args, kwargs: inputs; tensors (possibly nested in dict, list, tuple) with samples first.
        labels: one entry a sample, or None.
        size: number of samples.
        start: index of the first sample within the whole sample.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    labels: torch.Tensor | None
    size: int
    start: int


@dataclass(frozen=True)
class Scale:
    """Mean and standard deviation (of the population), float64, one each for every feature."""

    mean: torch.Tensor
    sd: torch.Tensor


@dataclass(frozen=True)
class Prepared:
    """What was learnt from ``--data`` and holds for held-out data as well.

    Attributes:
        classes: texts of the labels, in the order of their numbers; () if labels are numbers.
        scales: of the inputs in their order, where they were standardised.
    """

    classes: tuple[str, ...] = ()
    scales: tuple[Scale, ...] = ()


@dataclass(frozen=True)
class Sample:
    """A data sample that can be run through the model as often as needed.

    ``batches()`` starts from the first sample each time and yields the same samples in the same
    order, so that two sweeps see the same data. ``rows(indices)`` yields only some of them, counted
    from 0 and ascending; None where the source can only be read from its beginning, in its order.
    """

    path: str | None
    samples: int
    available: int | None
    synthetic: bool
    labels: bool
    inputs: Mapping[str, tuple[int, ...]]
    batches: Callable[[], Iterator[Batch]]
    notes: tuple[str, ...] = ()
    prepared: Prepared | None = None
    rows: Callable[[np.ndarray], Iterator[Batch]] | None = None
