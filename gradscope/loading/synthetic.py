"""An input where the user gave none: random numbers in the shape that the first layer takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch

from gradscope.config import DataSettings
from gradscope.errors import DataError, OptionError
from gradscope.loading.binding import model_dtype
from gradscope.loading.trial import run_once
from gradscope.loading.wanted import signature_of
from gradscope.model import Batch, LoadedModel, Sample

SAMPLES = 64
_STEPS = 16
_SIDES = (32, 28, 64, 224, 8, 128, 299)
_ONE_D = (128, 1024, 16000)


def synthesise(model: LoadedModel, settings: DataSettings) -> Sample:
    """Standard normal (or random integer) input, seeded.

    Raises:
        DataError: the shape cannot be found from the first layer.
        OptionError: ``--input-shape`` makes no sense.
    """
    module = model.module
    assert module is not None
    count = min(settings.samples or SAMPLES, SAMPLES)
    for inputs in _guesses(module, settings, count):
        batch = Batch(tuple(inputs.values()), {}, None, count, 0)
        if run_once(module, batch).error is None:
            return _sample(inputs, count, settings)
    if settings.input_shape:
        what = "the model does not run on an input of the shape given"
        raise OptionError(what, where="--input-shape", hint="Pass real samples with --data.")
    hint = "Pass samples with --data, or a shape with --input-shape 3x224x224."
    raise DataError("the input's shape cannot be told from the first layer", hint=hint)


def _guesses(
    module: torch.nn.Module, settings: DataSettings, count: int
) -> Iterator[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(settings.seed)
    dtype = model_dtype(module)
    bound = next(
        (m.num_embeddings for m in module.modules()
         if isinstance(m, torch.nn.Embedding | torch.nn.EmbeddingBag)), None
    )  # fmt: skip
    if settings.input_shape:
        names = signature_of(module).required or [""]
        shapes = dict(settings.input_shape)
        ordered = [shapes.pop(n) for n in names if n in shapes] or []
        ordered = [*([shapes.pop("")] if "" in shapes else []), *ordered]
        if shapes:
            known = ", ".join(names)
            what = f"the model has no input '{next(iter(shapes))}'"
            raise OptionError(what, where="--input-shape", hint=f"It has: {known}.")
        for integers in (False, True):
            if not integers or bound is not None:
                made = [_draw((count, *s), generator, dtype, bound if integers else None)
                        for s in ordered]  # fmt: skip
                yield dict(enumerate_names(made))
        return
    for shape, integers in _shapes(module):
        yield {"input": _draw((count, *shape), generator, dtype, bound if integers else None)}


def enumerate_names(values: list[torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
    """``input``, ``input[1]``, ..."""
    for i, value in enumerate(values):
        yield (f"input[{i}]" if i else "input"), value


def _draw(
    shape: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype, bound: int | None
) -> torch.Tensor:
    if bound is not None:
        return torch.randint(0, bound, shape, generator=generator)
    return torch.randn(shape, generator=generator).to(dtype)


def _shapes(module: torch.nn.Module) -> Iterator[tuple[tuple[int, ...], bool]]:
    """Shapes of one sample that the first layers may take, likeliest first."""
    for layer in module.modules():
        if isinstance(layer, torch.nn.Embedding | torch.nn.EmbeddingBag):
            yield (_STEPS,), True
            yield (), True
        elif isinstance(layer, torch.nn.Linear):
            features = layer.in_features
            yield (features,), False
            yield from ((shape, False) for shape in _images_of(features))
            yield (_STEPS, features), False
            return
        elif isinstance(layer, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            yield from (((layer.in_channels, s, s), False) for s in _SIDES)
            return
        elif isinstance(layer, torch.nn.Conv1d):
            yield from (((layer.in_channels, s), False) for s in _ONE_D)
            return
        elif isinstance(layer, torch.nn.Conv3d):
            yield (layer.in_channels, 16, 32, 32), False
            return
        elif isinstance(layer, torch.nn.RNNBase):
            yield (_STEPS, layer.input_size), False
            return
        elif isinstance(layer, torch.nn.TransformerEncoderLayer | torch.nn.MultiheadAttention):
            is_layer = isinstance(layer, torch.nn.TransformerEncoderLayer)
            attention = layer.self_attn if is_layer else layer
            if isinstance(attention, torch.nn.MultiheadAttention):
                yield (_STEPS, attention.embed_dim), False
            return
        elif isinstance(layer, torch.nn.BatchNorm2d | torch.nn.BatchNorm1d):
            yield (layer.num_features, 32, 32), False
            yield (layer.num_features,), False
            return
        elif isinstance(layer, torch.nn.LayerNorm):
            yield (_STEPS, *layer.normalized_shape), False
            return


def _images_of(features: int) -> Iterator[tuple[int, ...]]:
    """Square images that flatten to so many features."""
    for channels in (1, 3):
        side = round((features / channels) ** 0.5)
        if channels * side * side == features:
            yield (channels, side, side)


def _sample(inputs: Mapping[str, torch.Tensor], count: int, settings: DataSettings) -> Sample:
    def batches() -> Iterator[Batch]:
        for start in range(0, count, settings.batch_size):
            stop = min(start + settings.batch_size, count)
            args = tuple(t[start:stop] for t in inputs.values())
            yield Batch(args, {}, None, stop - start, start)

    shapes = {n: tuple(t.shape[1:]) for n, t in inputs.items()}
    kinds = {"integers" if not t.is_floating_point() else "N(0, 1)" for t in inputs.values()}
    note = f"synthesised input ({', '.join(sorted(kinds))}), seed {settings.seed}"
    return Sample(None, count, None, True, False, shapes, batches, (note,))
