"""Arrays find their inputs by name, and what does not match is told with both sides."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from gradscope.config import DataSettings
from gradscope.errors import DataError, OptionError
from gradscope.loading import load_sample
from gradscope.loading.binding import bind
from gradscope.loading.wanted import Wanted, signature_of, wanted_by
from gradscope.model import Input, LoadedModel, Sample


class Pair(nn.Module):
    """An image and what is known of it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.meta = nn.Conv2d(1, 4, 3), nn.Linear(5, 4)

    def forward(self, image, metadata):
        return self.conv(image).mean((2, 3)) + self.meta(metadata)


class Translate(nn.Module):
    """Two sequences of tokens; ``target`` is an input here, no label."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.out = nn.Embedding(11, 6), nn.Linear(6, 11)

    def forward(self, src, target):
        return self.out(self.table(src).mean(1, keepdim=True) + self.table(target))


class Masked(nn.Module):
    """As language models take them, the mask being optional."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.out = nn.Embedding(11, 6), nn.Linear(6, 2)

    def forward(self, input_ids, attention_mask=None, labels=None):
        h = self.table(input_ids)
        if attention_mask is not None:
            assert not attention_mask.is_floating_point()
            h = h * attention_mask.unsqueeze(-1)
        return self.out(h.mean(1))


class AsDictionary(nn.Module):
    """The batch as a whole."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Masked()

    def forward(self, batch):
        return self.inner(batch["input_ids"], batch["attention_mask"])


class Wrapper(nn.Module):
    """Passes on whatever it gets."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *args, **kwargs):
        return self.inner(*args, **kwargs)


class Positional(Wrapper):
    """Passes on what it gets in order."""

    def forward(self, *args):
        return self.inner(*args)


class Key(nn.Module):
    """A mask of booleans stays one: as numbers it would be added to the scores."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(4, 1, 8, batch_first=True)

    def forward(self, x, key_padding_mask):
        assert key_padding_mask.dtype is torch.bool
        return self.layer(x, src_key_padding_mask=key_padding_mask)


N = 6
IMAGE = np.zeros((N, 1, 5, 5), np.float32)
META = np.ones((N, 5), np.float64)
TOKENS = np.ones((N, 3), np.int32)
MASK = np.ones((N, 3), np.int64)
Y = np.arange(N) % 2


def opened(module: nn.Module, folder, /, batch=None, inputs=None, samples=512, **arrays) -> Sample:
    path = folder / "d.npz"
    np.savez(path, **arrays)
    model = LoadedModel("m", "PyTorch module", module, inputs=inputs, batch=batch)
    return load_sample(model, DataSettings(data=str(path), samples=samples))


@pytest.mark.parametrize(
    ("module", "arrays", "inputs", "labels"),
    [
        (Pair(), {"image": IMAGE, "metadata": META, "y": Y}, ["image", "metadata"], True),
        (Pair(), {"x": IMAGE, "metadata": META}, ["x", "metadata"], False),
        (Pair(), {"Image": IMAGE, "Metadata": META}, ["Image", "Metadata"], False),
        (Pair(), {"metadata": META, "image": IMAGE, "id": Y}, ["image", "metadata"], False),
        (Pair(), {"arr_0": IMAGE, "arr_1": META}, ["arr_0", "arr_1"], False),
        (Translate(), {"src": TOKENS, "target": TOKENS, "y": TOKENS}, ["src", "target"], True),
        (Translate(), {"src": TOKENS, "target": TOKENS}, ["src", "target"], False),
        (Masked(), {"input_ids": TOKENS, "labels": Y}, ["input_ids"], True),
        (Masked(), {"input_ids": TOKENS, "attention_mask": MASK, "labels": Y},
         ["input_ids", "attention_mask"], True),
        (Masked(), {"tokens": TOKENS.astype(np.float32)}, ["tokens"], False),
        (AsDictionary(), {"input_ids": TOKENS, "attention_mask": MASK, "labels": Y},
         ["input_ids", "attention_mask"], True),
        (Wrapper(Pair()), {"image": IMAGE, "metadata": META}, ["image", "metadata"], False),
        (Wrapper(Masked()), {"input_ids": TOKENS, "attention_mask": MASK},
         ["input_ids", "attention_mask"], False),
        (Positional(Pair()), {"image": IMAGE, "metadata": META}, ["image", "metadata"], False),
        (Positional(Pair()), {"metadata": META, "image": IMAGE}, ["image", "metadata"], False),
        (Key(), {"x": np.zeros((N, 3, 4), np.float32), "key_padding_mask": MASK == 0},
         ["x", "key_padding_mask"], False),
        (nn.Linear(5, 2), {"whatever": META}, ["whatever"], False),
    ],
)  # fmt: skip
def test_arrays_find_their_inputs(module, arrays, inputs, labels, tmp_path):
    sample = opened(module, tmp_path, **arrays)
    assert list(sample.inputs) == inputs
    assert sample.labels == labels
    batch = next(iter(sample.batches()))
    module(*batch.args, **batch.kwargs)


@pytest.mark.parametrize(
    ("module", "arrays", "message"),
    [
        (Pair(), {"image": IMAGE, "meta": META},
         r"'metadata': the model takes image, metadata; the arrays are image \(6, 1, 5, 5\) "
         r"float32, meta \(6, 5\) float64\. .*image, metadata"),
        (Pair(), {"left": IMAGE, "right": META}, r"which .* left \(6, 1, 5, 5\) float32, right"),
        (Pair(), {"y": Y}, "no input"),
        (Translate(), {"src": TOKENS, "y": TOKENS}, "no array for the model's input 'target'"),
        (Masked(), {"input_ids": META * 20},
         r"not run on it.*'table' \(Embedding, .* got \(1, 5\)"),
        (Masked(), {"input_ids": META + 0.5}, "not run"),
    ],
)  # fmt: skip
def test_what_does_not_match_is_told_with_both_sides(module, arrays, message, tmp_path):
    with pytest.raises(DataError, match=message) as error:
        opened(module, tmp_path, **arrays)
    assert "\n" not in str(error.value)


DECLARED = (Input("image", (None, 1, 5, 5), torch.float32), Input("metadata", (None, 5)))


def test_declared_inputs_are_passed_in_their_order_and_types(tmp_path):
    inputs = (Input("image", (None, 1, 5, 5), torch.float64), Input("metadata", (None, None)))
    sample = opened(Pair().double(), tmp_path, inputs=inputs, metadata=META, image=IMAGE)
    batch = next(iter(sample.batches()))
    assert [t.shape[1:] for t in batch.args] == [(1, 5, 5), (5,)]
    assert batch.args[0].dtype is torch.float64


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ((Input("image", (None, 1, 7, None)), Input("metadata")),
         r"the model takes image \(N, 1, 7, any\); 'image' is \(6, 1, 5, 5\)"),
        ((Input("image"), Input("metadata", (None, 5, 1))), r"\(N, 5, 1\); 'metadata' is \(6, 5\)"),
        ((Input("image"), Input("metadata", dtype=torch.int64)), "int64 .* holds fractions"),
    ],
)  # fmt: skip
def test_declared_sizes_and_types_are_compared(inputs, message, tmp_path):
    with pytest.raises(DataError, match=message):
        opened(Pair(), tmp_path, inputs=inputs, image=IMAGE, metadata=META / 2)


def test_an_optional_input_in_the_middle_is_left_out(tmp_path):
    class Middle(nn.Linear):
        def forward(self, a, b, c):
            assert b is None
            return super().forward(a + c)

    inputs = (Input("a"), Input("b", required=False), Input("c"))
    sample = opened(Middle(5, 2), tmp_path, inputs=inputs, a=META, c=META)
    assert list(sample.inputs) == ["a", "c"]


def exact(size: int) -> nn.Module:
    """Takes batches of one size only."""

    class Exact(nn.Linear):
        def forward(self, x):
            assert len(x) == size
            return super().forward(x)

    return Exact(5, 2)


@pytest.mark.parametrize(("samples", "run"), [(512, 4), (5, 4), (4, 4), (None, 4)])
def test_a_fixed_batch_is_honoured_and_the_rest_counted(samples, run, tmp_path):
    sample = opened(exact(2), tmp_path, batch=2, samples=samples, x=META[:5], y=Y[:5])
    assert [b.size for b in sample.batches()] == [2] * (run // 2)
    assert sample.samples == run
    left = [n for n in sample.notes if "exactly 2" in n]
    assert left == (["1 more were left out: the model takes exactly 2 at once"]
                    if samples != 4 else [])  # fmt: skip


def test_a_fixed_batch_that_cannot_be_filled_is_refused(tmp_path):
    with pytest.raises(DataError, match="exactly 7 samples at once, and there are 6"):
        opened(exact(7), tmp_path, batch=7, x=META)
    with pytest.raises(OptionError, match=r"exactly 4.*--samples 4"):
        opened(exact(4), tmp_path, batch=4, samples=3, x=META)


def test_signatures():
    assert signature_of(Pair()).required == ["image", "metadata"]
    assert signature_of(Masked()).required == ["input_ids"]
    assert signature_of(Masked()).names == ["input_ids", "attention_mask", "labels"]
    assert signature_of(Wrapper(Wrapper(Pair()))).names == ["image", "metadata"]
    assert signature_of(Positional(Pair())).positional == 2
    assert wanted_by(LoadedModel("m", "f", Pair(), inputs=DECLARED)).declared


def test_labels_named_by_the_user():
    bound = bind(Wanted(more=True), {"x": "", "digit": "", "y": ""}, "f", label="digit")
    assert (bound.label, bound.inputs) == ("digit", ["x"])
    assert bound.unused == ("y",)


def test_an_annotation_may_be_any_object():
    """``x: [torch.Tensor]`` is what people write."""

    class Listed(nn.Module):
        def forward(self, x, n):
            return x

    Listed.forward.__annotations__.update(x=[torch.Tensor], n=int)
    assert [i.plain for i in signature_of(Listed()).inputs] == [False, True]
