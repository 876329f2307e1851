"""What the layers of a model say of the input that reaches them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

STEPS = 16
SIDES = (32, 28, 64, 224, 8, 128, 299, 16, 96, 48, 256)
LENGTHS = (128, 1024, 16000)
_VOLUME = (16, 32, 32)


@dataclass(frozen=True)
class Spec:
    """An input that might fit.

    Attributes:
        shape: of one sample.
        kind: ``float``, ``int`` (below ``bound``), ``bool`` (all False), ``ones``, ``steps``.
        bound: of integers.
        free: axes whose size is a guess.
    """

    shape: tuple[int, ...]
    kind: str = "float"
    bound: int = 0
    free: tuple[int, ...] = ()

    def sized(self, sizes: dict[int, int]) -> Spec:
        """With other sizes at some axes."""
        shape = tuple(max(1, sizes.get(i, s)) for i, s in enumerate(self.shape))
        return replace(self, shape=shape)


def first_specs(module: torch.nn.Module) -> Iterator[Spec]:
    """Inputs that the first layers may take, likeliest first."""
    found = False
    for layer in module.modules():
        for spec in specs_of(layer):
            found = True
            yield spec
        if found and family(layer) not in ("Embedding", "EmbeddingBag"):
            return
    if not found:
        yield from _of_parameters(module)


def _of_parameters(module: torch.nn.Module) -> Iterator[Spec]:
    """Models that multiply by matrices of their own."""
    for parameter in module.parameters():
        if parameter.dim() == 2:
            yield Spec((parameter.shape[0],))
            yield Spec((parameter.shape[1],))
    yield Spec((STEPS,), free=(0,))


def family(layer: torch.nn.Module) -> str:
    """The kind of a layer: its class, also of a scripted one and of subclasses of torch's own."""
    if isinstance(layer, torch.jit.ScriptModule):
        return str(layer.original_name)
    return next((c.__name__ for c in type(layer).__mro__ if c.__module__.startswith("torch.nn")
                 and c.__name__ in _FAMILIES), type(layer).__name__)  # fmt: skip


def specs_of(layer: torch.nn.Module) -> Iterator[Spec]:
    """Inputs that a layer may take, likeliest first; nothing if it says nothing."""
    kind = family(layer)
    if kind not in _FAMILIES:
        return
    if kind == "Unflatten":
        sizes = getattr(layer, "unflattened_size", ())
        if getattr(layer, "dim", 0) == 1 and sizes and all(_is_size(s) for s in sizes):
            yield Spec((math.prod(sizes),))
        return
    weight = _weight(layer)
    if kind in ("MultiheadAttention", "Transformer", *_TRANSFORMER_LAYERS):
        width = _width(layer)
        if width:
            yield Spec((STEPS, width), free=(0,))
    elif weight is None or weight.dim() >= _axes(kind):
        yield from _by_weight(layer, kind, weight)


def _weight(layer: torch.nn.Module) -> torch.Tensor | None:
    """As the layer computes with it: where it is normalised, none of its parts."""
    weight = getattr(layer, "weight", None)
    if isinstance(weight, torch.Tensor):
        return weight
    return next((p for n, p in layer.named_parameters(recurse=False) if "weight" in n), None)


def _is_size(value: object) -> bool:
    """Whether an attribute is a size: a file may say anything."""
    return isinstance(value, int) and value > 0


def _axes(kind: str) -> int:
    """Of the weight of a layer, at least."""
    if kind.startswith("Conv"):
        return 2 + int(kind[-2])
    return 1 if "Norm" in kind else 2


def _width(layer: torch.nn.Module) -> int:
    for name in ("d_model", "embed_dim"):
        if _is_size(getattr(layer, name, None)):
            return int(getattr(layer, name))
    attention = getattr(layer, "self_attn", None)
    return _width(attention) if isinstance(attention, torch.nn.Module) else 0


def _by_weight(layer: torch.nn.Module, kind: str, weight: torch.Tensor | None) -> Iterator[Spec]:
    if weight is None:
        channels = getattr(layer, "num_features", 0)
        yield from _normalised(kind, (channels,)) if _is_size(channels) else ()
    elif kind in ("Embedding", "EmbeddingBag"):
        yield Spec((STEPS,), "int", weight.shape[0], (0,))
        yield Spec((), "int", weight.shape[0])
    elif kind == "Linear":
        features = weight.shape[1]
        yield Spec((features,))
        yield from (Spec(shape) for shape in _images_of(features))
        yield Spec((STEPS, features), free=(0,))
    elif kind == "Bilinear":
        yield Spec((weight.shape[1],))
        yield Spec((weight.shape[2],))
    elif kind.startswith("Conv"):
        yield from _convolved(layer, kind, weight)
    elif kind in ("LSTM", "GRU", "RNN"):
        yield Spec((STEPS, weight.shape[1]), free=(0,))
    elif kind in ("LSTMCell", "GRUCell", "RNNCell"):
        yield Spec((weight.shape[1],))
    else:
        yield from _normalised(kind, tuple(weight.shape))


def _convolved(layer: torch.nn.Module, kind: str, weight: torch.Tensor) -> Iterator[Spec]:
    turned = kind.startswith("ConvTranspose")
    groups = getattr(layer, "groups", 1)
    channels = weight.shape[0] if turned else weight.shape[1] * (groups if _is_size(groups) else 1)
    if kind.endswith("1d"):
        yield from (Spec((channels, n), free=(1,)) for n in LENGTHS)
    elif kind.endswith("2d"):
        yield from (Spec((channels, s, s), free=(1, 2)) for s in SIDES)
    else:
        yield Spec((channels, *_VOLUME), free=(1, 2, 3))


def _normalised(kind: str, shape: tuple[int, ...]) -> Iterator[Spec]:
    if kind in ("LayerNorm", "RMSNorm"):
        yield Spec((STEPS, *shape), free=(0,))
        yield Spec(shape)
    elif kind == "BatchNorm3d":
        yield Spec((*shape, *_VOLUME), free=(1, 2, 3))
    else:
        yield Spec((*shape, 32, 32), free=(1, 2))
        yield Spec(shape)
        yield Spec((*shape, STEPS), free=(1,))


def _images_of(features: int) -> Iterator[tuple[int, ...]]:
    """Square images that flatten to so many features."""
    for channels in (1, 3):
        side = round((features / channels) ** 0.5)
        if channels * side * side == features:
            yield (channels, side, side)


_TRANSFORMER_LAYERS = ("TransformerEncoderLayer", "TransformerDecoderLayer")
_FAMILIES = {
    "Embedding", "EmbeddingBag", "Linear", "Bilinear", "Unflatten", "LSTM", "GRU", "RNN",
    "LSTMCell", "GRUCell", "RNNCell", "MultiheadAttention", "Transformer", *_TRANSFORMER_LAYERS,
    *(f"Conv{t}{d}d" for t in ("", "Transpose") for d in (1, 2, 3)),
    *(f"BatchNorm{d}d" for d in (1, 2, 3)), "LayerNorm", "RMSNorm", "GroupNorm",
}  # fmt: skip
