"""What a remedy is: tensors in, changed tensors out; its claims are checked."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar

import torch

from gradscope.errors import GradscopeError
from gradscope.findings import Cause
from gradscope.measurements import Measurements
from gradscope.model import Exchange, Explicit, Products
from gradscope.repair.capture import Capture, Use
from gradscope.repair.chain import Chain, Link, find_chain
from gradscope.repair.minibatches import Minibatches
from gradscope.repair.training import Trainee
from gradscope.treatment import Placed

Tensors = Mapping[str, torch.Tensor]


class RemedyError(GradscopeError):
    """A remedy that broke its own promise. Names the remedy and the parameter."""


@dataclass
class Case:
    """The model under treatment, and what is known of it.

    Attributes:
        measured: of the model as it came.
        causes: of the diagnosis, most important first.
        trainee: runs it.
        tensors: its parameters by name, as they are in the model; remedies never write to them.
        data: training batches and held-out ones.
        seed: of what is drawn.
        buffers: running statistics and other buffers by name.
        exchange: of the logistic activations; or why the form of the file allows none.
        explicit: of scales that stand in the file; None where its form has no place for them.
    """

    measured: Measurements
    causes: tuple[Cause, ...]
    trainee: Trainee
    tensors: Tensors
    data: Minibatches
    seed: int = 0
    buffers: Tensors = field(default_factory=dict)
    exchange: Exchange | str = "the model stands in no file"
    explicit: Explicit | None = None

    @cached_property
    def chain(self) -> Chain:
        """The layers that may be changed; frozen ones are outside, and so is what feeds no
        activation itself, but for the one that is multiplied last."""
        found, last = find_chain(self.measured), self._last_weight()
        links, outside = [], list(found.outside)
        for k in found.links:
            if k.weight not in self.tensors:
                outside.append((k.weight, "is frozen"))
            elif k.site is None and k.weight != last:
                outside.append((k.weight, "feeds no activation itself, but a norm or a sum"))
            else:
                bias = k.bias if k.bias in self.tensors else None
                links.append(Link(k.weight, bias, k.site))
        return Chain(tuple(links), tuple(outside))

    def _last_weight(self) -> str | None:
        self.trainee.set_training(False)
        batch = next(self.data.once(), None)
        if batch is None:
            return None
        # Of all parameters: the last of those that may be changed can be another layer's.
        every = dict(self.trainee.module.named_parameters())
        with torch.no_grad(), Capture(every) as capture:
            self.trainee.call(batch)
        return capture.uses[-1].weight if capture.uses else None

    @contextmanager
    def with_tensors(self, changed: Tensors) -> Iterator[None]:
        """The model holds these values inside, and its own again outside."""
        own = {name: self.own(name) for name in changed}
        held = {name: tensor.detach().clone() for name, tensor in own.items()}
        with torch.no_grad():
            for name, value in changed.items():
                own[name].copy_(value)
        try:
            yield
        finally:
            with torch.no_grad():
                for name, value in held.items():
                    own[name].copy_(value)

    @contextmanager
    def with_products(self, products: Products) -> Iterator[None]:
        """The model runs with these factors at the nodes of its file inside."""
        if self.explicit is None or not products:
            yield
            return
        self.explicit.put(products)
        try:
            yield
        finally:
            self.explicit.put({})

    def own(self, name: str) -> torch.Tensor:
        """A parameter or a buffer as it is in the model."""
        return self.tensors[name] if name in self.tensors else self.buffers[name]

    def uses(self, changed: Tensors, weight: str) -> Iterator[list[Use]]:
        """How a weight is used, batch by batch of some training samples, under changed tensors."""
        with self.with_tensors(changed):
            self.trainee.set_training(False)
            for batch in self.data.some():
                with torch.no_grad(), Capture(self.tensors, weight) as capture:
                    self.trainee.call(batch)
                yield capture.uses


@dataclass(frozen=True)
class Result:
    """What a remedy did.

    Attributes:
        changed: new values by name.
        said: for people: what was done, and what was left and why.
        places: what became of each scale.
        products: factors before and behind nodes of the file, which belong to the new values.
    """

    changed: Tensors
    said: tuple[str, ...] = field(default=())
    places: tuple[Placed, ...] = ()
    products: Products = field(default_factory=dict)

    @property
    def modified(self) -> bool:
        """Whether anything is different."""
        return bool(self.changed) or bool(self.products)


class Remedy(ABC):
    """One way to repair a model.

    Attributes:
        name: as in ``--method``.
        summary: one line.
    """

    name: ClassVar[str]
    summary: ClassVar[str]

    @abstractmethod
    def requires(self, case: Case) -> str | None:
        """Why it cannot be applied; None if it can."""

    @abstractmethod
    def apply(self, case: Case) -> Result:
        """New values for some of the parameters."""


def followed(case: Case, first: Result, remedy: Remedy) -> Result:
    """A result, and another remedy applied to the model as it is then."""
    with case.with_tensors(first.changed):
        second = remedy.apply(case)
    said, places = (*first.said, *second.said), (*first.places, *second.places)
    return Result({**first.changed, **second.changed}, said, places)


def perform(remedy: Remedy, case: Case) -> Result:
    """Apply a remedy and hold it to its promise: inputs untouched, shapes kept, numbers finite.

    Raises:
        RemedyError: it cannot be applied, or broke its promise.
    """
    reason = remedy.requires(case)
    if reason is not None:
        raise RemedyError(f"cannot be applied: {reason}", where=f"--method {remedy.name}")
    versions = {name: tensor.detach().clone() for name, tensor in case.tensors.items()}
    result = remedy.apply(case)
    for name, tensor in case.tensors.items():
        if not torch.equal(versions[name].nan_to_num(), tensor.detach().nan_to_num()):
            raise RemedyError(f"changed '{name}' in place", where=remedy.name)
    changed = {}
    for name, value in result.changed.items():
        old = case.own(name)
        if value.shape != old.shape or not bool(torch.isfinite(value).all()):
            raise RemedyError(f"made no usable '{name}'", where=remedy.name)
        value = value.detach().to(old.dtype)
        if not torch.equal(value, old.detach()):
            changed[name] = value
    return replace(result, changed=changed)
