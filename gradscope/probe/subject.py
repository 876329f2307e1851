"""The model under examination: how it is called, and what of it is looked at."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from gradscope.errors import ProbeError
from gradscope.model import Origin
from gradscope.probe.scratch import Scratch
from gradscope.snapshot import Snapshot


@dataclass(frozen=True)
class Names:
    """Parameters by identity: tied ones are one parameter with several names.

    Attributes:
        by_id: id of the tensor -> its first name.
        all: first name -> all names.
        order: first name -> position in the model.
        tensors: first name -> parameter.
        origins: layer of a parameter, where its name does not tell.
    """

    by_id: Mapping[int, str]
    all: Mapping[str, tuple[str, ...]]
    order: Mapping[str, int]
    tensors: Mapping[str, torch.Tensor]
    origins: Mapping[str, Origin] = field(default_factory=dict)

    @classmethod
    def of(cls, module: torch.nn.Module, origins: Mapping[str, Origin] | None = None) -> Names:
        """All parameters of a module."""
        by_id: dict[int, str] = {}
        every: dict[str, list[str]] = {}
        tensors: dict[str, torch.Tensor] = {}
        for name, parameter in module.named_parameters(remove_duplicate=False):
            first = by_id.setdefault(id(parameter), name)
            every.setdefault(first, []).append(name)
            tensors.setdefault(first, parameter)
        order = {name: i for i, name in enumerate(tensors)}
        return cls(by_id, {k: tuple(v) for k, v in every.items()}, order, tensors, origins or {})

    @property
    def layers(self) -> Mapping[str, str]:
        """Layer of each parameter whose name does not tell."""
        return {name: origin.layer for name, origin in self.origins.items()}


class Subject:
    """A model, ready to be called again and again, each time from the same state.

    Args:
        module: in the mode in which it is examined.
        device: where it is.
        snapshot: of its state.
        outputs: names of the outputs to look at; none: all.
        origins: layers of the parameters, where names do not tell.

    Attributes:
        remembers: what changed in the model during calls, and was put back.
        scratch: memory that the statistics of all batches are computed in.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        device: torch.device,
        snapshot: Snapshot,
        outputs: Sequence[str] = (),
        origins: Mapping[str, Origin] | None = None,
    ) -> None:
        self.module, self.device, self.outputs = module, device, tuple(outputs)
        self.names = Names.of(module, origins)
        self.remembers: dict[str, None] = {}
        self.scratch = Scratch()
        self._snapshot = snapshot

    def __call__(self, args: Any, kwargs: Mapping[str, Any], where: str) -> Any:
        """Run the model; what the model's own code raises becomes one line.

        Raises:
            ProbeError: the model failed on this input.
        """
        self.remembers.update(dict.fromkeys(self._snapshot.restore()))
        with models_code(f"the model failed on {where}"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self.module(*args, **kwargs)

    def make_gradients_dense(self) -> None:
        """Sparse gradients (of ``Embedding(sparse=True)``) as ordinary tensors."""
        for tensor in self.names.tensors.values():
            if tensor.grad is not None and tensor.grad.layout is not torch.strided:
                tensor.grad = tensor.grad.to_dense()


@contextmanager
def models_code(what: str) -> Iterator[None]:
    """What the model's own code raises becomes one line.

    Args:
        what: failed.

    Raises:
        ProbeError: the model failed; running out of memory stays what it is.
    """
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # any code may stand in a model's forward
        if "can't allocate memory" in str(error):
            raise
        message = f"{what}: {type(error).__name__}: {error}"
        raise ProbeError(message, hint=_hint(str(error))) from error


def _hint(message: str) -> str:
    """What may help, by what the message is about."""
    if "cuda" in message.lower():
        return "Its code moves tensors to a GPU by itself: run it where there is one (--device)."
    if "more than 1 value per channel" in message:
        return "Batch statistics need two samples in every batch: choose another --batch-size."
    if "same dtype" in message or "expected scalar type" in message:
        return "Its code mixes types: if --dtype is given, leave it out."
    if "not implemented for" in message or "not support" in message:
        return "This operation does not exist here: try --device cuda, or the model in float32."
    if "modified by an inplace operation" in message or "backward" in message:
        return "It cannot be trained as it is either."
    return "Check that --data has what the model's forward takes."
