"""Where the tensors of a model in training lie: all of each here, or parts over processes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


class Layout:
    """All of each tensor is here."""

    def whole(self, value: Any) -> Any:
        """Everything in a tree of tensors in one piece; all processes call it alike."""
        return value

    def local(self, tensors: list[torch.Tensor]) -> list[torch.Tensor]:
        """What of them lies here; sums over these add up over the processes."""
        return tensors

    def total_norm(self, gradients: list[torch.Tensor]) -> torch.Tensor:
        """Of all of them as one vector, everywhere."""
        return torch.nn.utils.get_total_norm(gradients)

    def clip(self, parameters: list[torch.Tensor], most: float) -> None:
        """Scale their gradients down to a total norm of ``most``."""
        torch.nn.utils.clip_grad_norm_(parameters, most)

    def placed(self, value: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """What of a whole value lies here, where it is laid out as another tensor is."""
        return value

    def enter(self, tensor: torch.Tensor, value: torch.Tensor) -> None:
        """A whole value into a tensor."""
        tensor.copy_(self.placed(value, tensor))

    def enter_optimiser(
        self,
        optimiser: torch.optim.Optimizer,
        state: Mapping[str, Any],
        parameters: list[torch.Tensor],
    ) -> None:
        """What a whole optimiser remembers into this one, whose moments lie as parameters do."""

        def entered(value: Any, like: torch.Tensor) -> Any:
            return self.placed(value, like) if isinstance(value, torch.Tensor) else value

        remembered = {
            i: {name: entered(value, parameters[i]) for name, value in of_one.items()}
            for i, of_one in state["state"].items()
        }
        optimiser.load_state_dict({**state, "state": remembered})


HERE = Layout()
