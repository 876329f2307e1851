"""An input where the user gave none: random numbers in the shapes that the model takes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from gradscope.config import DataSettings
from gradscope.errors import DataError, OptionError
from gradscope.loading.binding import model_dtype
from gradscope.loading.families import STEPS, Spec, family, first_specs, specs_of
from gradscope.loading.search import State, declared, named, search
from gradscope.loading.trial import Trial, run_once
from gradscope.loading.wanted import Wanted, wanted_by
from gradscope.model import Batch, Input, LoadedModel, Sample

SAMPLES = 64
_LAYERS = 8
_MOST = 1 << 30  # numbers that are made up
_TRIED = 2  # samples; with one, an axis of samples cannot be told from none


def synthesise(model: LoadedModel, settings: DataSettings) -> Sample:
    """Standard normal (or random integer) input, seeded.

    Raises:
        DataError: no shape was found on which the model runs.
        OptionError: ``--input-shape`` makes no sense.
    """
    assert model.module is not None
    maker = _Maker.of(model, settings)
    for given, note in _readings(settings.input_shape, maker):
        found = maker.find(given)
        if found is not None:
            return maker.sample(found, [note] if note else [])
    if maker.wanted.values:
        plain = next(i.name for i in maker.inputs if i.plain)
        what = f"'{plain}' is no tensor that can be made up: the model takes {maker.wanted}"
        raise DataError(what, where=model.path, hint=f"It is given as {maker.wanted.values}.")
    if settings.input_shape:
        what = f"the model does not run on an input of the shape given; it takes {maker.wanted}"
        raise OptionError(what, where="--input-shape", hint="Pass real samples with --data.")
    failed = maker.as_declared()
    if failed is not None and failed.error is not None:
        first = str(failed.error).strip().split("\n")[0]
        what = f"the model does not run on an input made up as it declares it: {first}"
        raise DataError(what, where=model.path, hint="Pass samples with --data.")
    several = [i.name for i in maker.inputs if i.name]
    shown = " ".join(f"--input-shape {n}=3x224x224" for n in several[:2])
    shape = shown if len(several) > 1 else "--input-shape 3x224x224"
    hint = f"Pass samples with --data, or a shape with {shape}."
    raise DataError("the input's shape cannot be told from the first layer", hint=hint)


def _readings(
    shapes: Mapping[str, tuple[int, ...]], maker: _Maker
) -> Iterator[tuple[dict[str, tuple[int, ...]], str | None]]:
    """``--input-shape`` as the shape of one sample, then as one with the samples first."""
    names = maker.names_of(shapes)
    given = {names[n]: shape for n, shape in shapes.items()}
    yield given, None
    if given and all(len(shape) > 1 for shape in given.values()):
        text = ", ".join("x".join(map(str, shape)) for shape in shapes.values())
        note = f"--input-shape {text}: the first number was taken as the axis of the samples"
        yield {n: shape[1:] for n, shape in given.items()}, note


@dataclass(frozen=True)
class _Maker:
    """Makes inputs for a model.

    Attributes:
        module: to be run.
        wanted: what it takes.
        inputs: what is made: all that it does not run without, and what the user gave a shape for.
        dtype: of its parameters.
        tokens: size of its first embedding; None if it has none.
        count: samples.
        exact: the only number of samples it takes.
        settings: seed, shapes, size of batches.
    """

    module: torch.nn.Module
    wanted: Wanted
    inputs: tuple[Input, ...]
    dtype: torch.dtype
    tokens: int | None
    count: int
    exact: int | None
    settings: DataSettings

    @classmethod
    def of(cls, model: LoadedModel, settings: DataSettings) -> _Maker:
        module = model.module
        assert module is not None
        wanted = wanted_by(model)
        inputs = tuple(i for i in wanted.inputs if i.required or i.name in settings.input_shape)
        inputs = inputs or wanted.inputs[:1] or (Input(""),)
        tables = (m for m in module.modules() if family(m) in ("Embedding", "EmbeddingBag"))
        tokens = next((p.shape[0] for m in tables for p in m.parameters() if p.dim()), None)
        count = min(settings.samples or SAMPLES, SAMPLES)
        exact = model.batch
        if exact is not None:
            count = max(exact, count - count % exact)
        found = cls(module, wanted, inputs, model_dtype(module), tokens, count, exact, settings)
        found.names_of(settings.input_shape)
        return found

    def names_of(self, shapes: Mapping[str, object]) -> dict[str, str]:
        """Name on the command line -> name of the input; "" is the first."""
        known = [i.name for i in self.inputs]
        names = {n: n or known[0] for n in shapes}
        strange = next((n for n in names.values() if n not in known), None)
        if strange is not None:
            hint = f"It has: {', '.join(self.wanted.names)}."
            raise OptionError(
                f"the model has no input '{strange}'", where="--input-shape", hint=hint
            )
        return names

    def find(self, given: Mapping[str, tuple[int, ...]]) -> State | None:
        """A guess on which the model runs."""
        kinds = [given.get(i.name) for i in self.inputs]
        fixed = [shape is not None for shape in kinds]
        found = search(self._starts(kinds), self._run, fixed)
        return found[0] if found is not None else None

    def as_declared(self) -> Trial | None:
        """What comes of an input of the declared sizes; None if any is open."""
        shapes = [i.shape for i in self.inputs]
        if not self.wanted.declared or any(s is None or None in s[1:] for s in shapes):
            return None
        return self._run(next(self._starts([None] * len(shapes))))

    def _starts(self, given: Sequence[tuple[int, ...] | None]) -> Iterator[State]:
        """First guesses: what is declared or named so, else what the first layers say."""
        said = [declared(i, self.tokens) or named(i, self.tokens) for i in self.inputs]
        for guesses in self._guesses(len(said), any(spec is None for spec in said)):
            for integers in (False, True):
                yield tuple(
                    self._of_shape(shape, wanted, spec or guess, integers=integers)
                    for wanted, shape, spec, guess in zip(
                        self.inputs, given, said, guesses, strict=True
                    )
                )

    def _guesses(self, count: int, wanted: bool) -> Iterator[Sequence[Spec]]:
        """One spec for each input, where no name tells."""
        layers = list(first_specs(self.module))
        yield from ([layer] * count for layer in (layers if wanted else layers[:1]))
        if not wanted or count == 1:
            return
        plain = Spec((STEPS,))  # numbers that join later
        yield from ([layer, *[plain] * (count - 1)] for layer in layers)
        # where no failure can be traced to a layer, in scripts, say: every layer with every other
        firsts = (next(specs_of(m), None) for m in self.module.modules())
        known = list(dict.fromkeys(spec for spec in firsts if spec is not None))[:_LAYERS]
        yield from itertools.product(known, repeat=count)

    def _of_shape(
        self, shape: tuple[int, ...] | None, wanted: Input, guess: Spec, *, integers: bool
    ) -> Spec:
        if shape is None:
            return guess
        if wanted.dtype is not None or guess.kind in ("bool", "ones"):
            return replace(guess, shape=shape, free=())
        if integers and self.tokens is not None:
            return Spec(shape, "int", self.tokens)
        return Spec(shape)

    def _run(self, state: State) -> Trial:
        batch = self._batch(self._drawn(state, self.exact or _TRIED))
        return run_once(self.module, batch, batch.size)

    def _drawn(self, state: State, count: int) -> list[torch.Tensor]:
        generator = torch.Generator().manual_seed(self.settings.seed)
        pairs = zip(state, self.inputs, strict=True)
        return [_draw(spec, count, generator, i.dtype or self.dtype) for spec, i in pairs]

    def _batch(self, tensors: Sequence[torch.Tensor], start: int = 0) -> Batch:
        """By position if there is one, or if the model says so; else by name."""
        size = len(tensors[0])
        if len(tensors) == 1 or self.wanted.declared or self.wanted.positional:
            return Batch(tuple(tensors), {}, None, size, start)
        named_ = {i.name: t for i, t in zip(self.inputs, tensors, strict=True)}
        return Batch((), named_, None, size, start)

    def sample(self, state: State, notes: Sequence[str]) -> Sample:
        """The whole sample."""
        tensors, size = self._drawn(state, self.count), self.exact or self.settings.batch_size

        def batches() -> Iterator[Batch]:
            for start in range(0, self.count, size):
                yield self._batch([t[start : start + size] for t in tensors], start)

        alone = len(tensors) == 1
        shapes = {
            "input" if alone else i.name: tuple(t.shape[1:])
            for i, t in zip(self.inputs, tensors, strict=True)
        }
        kinds = ", ".join(sorted({_KINDS[spec.kind] for spec in state}))
        first = f"synthesised input ({kinds}), seed {self.settings.seed}"
        return Sample(None, self.count, None, True, False, shapes, batches, (first, *notes))


_KINDS = {
    "float": "N(0, 1)",
    "int": "integers",
    "bool": "masks of False",
    "ones": "masks of 1",
    "steps": f"lengths of {STEPS}",
}


def _draw(spec: Spec, count: int, generator: torch.Generator, dtype: torch.dtype) -> torch.Tensor:
    shape = (count, *spec.shape)
    if math.prod(shape) > _MOST:
        said = "x".join(map(str, spec.shape)) or "single numbers"
        what = f"{count} samples of {said} at once are too much to be made up"
        raise DataError(what, hint="Pass samples with --data.")
    if spec.kind == "int":
        integers = torch.randint(0, max(spec.bound, 1), shape, generator=generator)
        return integers if dtype.is_floating_point else integers.to(dtype)
    if spec.kind == "bool":
        return torch.zeros(shape, dtype=torch.bool)
    if spec.kind in ("ones", "steps"):
        value = 1 if spec.kind == "ones" else STEPS
        return torch.full(shape, value, dtype=torch.int64)
    return torch.randn(shape, generator=generator).to(dtype)
