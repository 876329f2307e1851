"""Weights that a layer makes anew from other parameters: weight and spectral norm, pruning.

The parameters are what is trained, so gradients are theirs; but whether a weight is large or small
for its layer can only be told of the weight that the layer multiplies with.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch.nn.utils import parametrize

_PAIRS = ((".original0", ".original1"), ("_g", "_v"))


def owner_of(parameter: str) -> tuple[str, str]:
    """(module path, parameter's own name), through torch's parametrizations."""
    path, _, name = parameter.rpartition(".")
    if ".parametrizations." in f".{path}.":
        head, _, rest = f".{path}".partition(".parametrizations.")
        return head.lstrip("."), rest
    return path, name


def made_weights(module: torch.nn.Module) -> dict[str, torch.Tensor | None]:
    """Parameter -> the weight that is made of it; None where its shape is not the weight's own.

    Parameters that are used as they are do not appear.
    """
    found: dict[str, torch.Tensor | None] = {}
    with torch.no_grad():
        for path, layer in module.named_modules():
            prefix = f"{path}." if path else ""
            for sources, weight in (*_parametrised(layer), *_hooked(layer)):
                for name, source in sources.items():
                    made = weight.detach() if source.shape == weight.shape else None
                    found[f"{prefix}{name}"] = made
    return found


def pair_names(names: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor | None]:
    """Of a state_dict alone: lengths and directions of weight norm, whose weight is not known."""
    found: dict[str, torch.Tensor | None] = {}
    for one, two in _PAIRS:
        for name in names:
            if name.endswith(one) and name.removesuffix(one) + two in names:
                found |= {name: None, name.removesuffix(one) + two: None}
    return found


Made = tuple[dict[str, torch.Tensor], torch.Tensor]


def _parametrised(layer: torch.nn.Module) -> Iterator[Made]:
    """``torch.nn.utils.parametrizations`` and parametrizations of the user's."""
    if isinstance(layer, torch.jit.ScriptModule) or not parametrize.is_parametrized(layer):
        return
    assert isinstance(layer.parametrizations, torch.nn.ModuleDict)
    for name, chain in layer.parametrizations.items():
        own = {k: p for k, p in chain.named_parameters(recurse=False) if k.startswith("original")}
        yield {f"parametrizations.{name}.{k}": p for k, p in own.items()}, getattr(layer, name)


def _hooked(layer: torch.nn.Module) -> Iterator[Made]:
    """``torch.nn.utils.weight_norm``, ``spectral_norm`` and pruning: hooks before each call."""
    if isinstance(layer, torch.jit.ScriptModule):
        return
    for hook in layer._forward_pre_hooks.values():
        name = getattr(hook, "name", None) or getattr(hook, "_tensor_name", None)
        weight = _weight_of(hook, layer)
        if isinstance(name, str) and weight is not None:
            ends = (f"{name}_g", f"{name}_v", f"{name}_orig")
            sources = {k: layer._parameters[k] for k in ends if k in layer._parameters}
            yield {k: p for k, p in sources.items() if p is not None}, weight


def _weight_of(hook: object, layer: torch.nn.Module) -> torch.Tensor | None:
    """What the hook would put in place."""
    match type(hook).__name__:
        case "WeightNorm":
            made = hook.compute_weight(layer)  # type: ignore[attr-defined]
        case "SpectralNorm":
            made = hook.compute_weight(layer, do_power_iteration=False)  # type: ignore[attr-defined]
        case _:
            made = hook.apply_mask(layer) if hasattr(hook, "apply_mask") else None
    return made if isinstance(made, torch.Tensor) else None
