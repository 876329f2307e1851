"""The model under examination: how it is called, and what of it is looked at."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from gradscope.errors import ProbeError
from gradscope.model import Origin
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
        self._snapshot = snapshot

    def __call__(self, args: Any, kwargs: Mapping[str, Any], where: str) -> Any:
        """Run the model; what the model's own code raises becomes one line.

        Raises:
            ProbeError: the model failed on this input.
        """
        self.remembers.update(dict.fromkeys(self._snapshot.restore()))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return self.module(*args, **kwargs)
        except Exception as error:  # any code may stand in a model's forward
            what = f"the model failed on {where}: {type(error).__name__}: {error}"
            hint = "Check that --data has what the model's forward takes."
            raise ProbeError(what, hint=hint) from error
