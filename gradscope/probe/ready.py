"""What cannot be examined at all is refused before anything runs."""

from __future__ import annotations

import torch
from torch.nn.parameter import is_lazy

from gradscope.errors import ProbeError


def check_ready(module: torch.nn.Module, where: str | None = None) -> None:
    """Refuse models without sizes and models without gradients.

    Args:
        module: as loaded.
        where: the file, for the message.

    Raises:
        ProbeError: lazy layers that have not seen an input yet, or quantised layers.
    """
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if is_lazy(tensor):
            what = f"'{name}' has no size yet: a lazy layer that has not seen an input"
            hint = "Run the model on some input before saving it."
            raise ProbeError(what, where=where, hint=hint)
    for name, child in module.named_modules():
        if ".quantized" in type(child).__module__ or _packed(child):
            what = f"'{name}' ({type(child).__name__}) is quantised: no gradient is defined"
            hint = "Examine the model from before quantisation."
            raise ProbeError(what, where=where, hint=hint)


def _packed(module: torch.nn.Module) -> bool:
    """Weights in the packed form of the quantised kernels, as scripts keep them."""
    return any("_packed_params" in key for key in vars(module))
