"""Every class of ``torch.nn``, saved whole: it opens without any flag and calculates the same."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import prune

from gradscope.config import LoadSettings
from gradscope.errors import UntrustedError
from gradscope.loading import load_model

CLASSES = {
    name: cls
    for name, cls in vars(nn).items()
    if isinstance(cls, type) and issubclass(cls, nn.Module)
}
ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "AdaptiveLogSoftmaxWithLoss": (8, 10, [4]), "Bilinear": (4, 4, 3), "ChannelShuffle": (2,),
    "CrossMapLRN2d": (2,), "DataParallel": (nn.Linear(4, 2),), "Embedding": (5, 3),
    "EmbeddingBag": (5, 3), "Fold": ((4, 4), 2), "FractionalMaxPool2d": (2, 2),
    "FractionalMaxPool3d": (2, 2), "GRU": (4, 3, 2), "GRUCell": (4, 3), "GroupNorm": (2, 4),
    "LSTM": (4, 3, 2), "LSTMCell": (4, 3), "LayerNorm": (4,), "Linear": (4, 3),
    "LinearCrossEntropyLoss": (4, 3), "LocalResponseNorm": (2,), "ModuleDict": ({"a": nn.Tanh()},),
    "ModuleList": ([nn.Linear(4, 2)],), "MultiheadAttention": (4, 2),
    "ParameterDict": ({"a": nn.Parameter(torch.ones(2))},),
    "ParameterList": ([nn.Parameter(torch.ones(2))],), "PixelShuffle": (2,),
    "PixelUnshuffle": (2,), "RMSNorm": (4,), "RNN": (4, 3, 2), "RNNBase": ("LSTM", 4, 3),
    "RNNCell": (4, 3), "RNNCellBase": (4, 3, True, 1), "Sequential": (nn.Linear(4, 2), nn.Tanh()),
    "Softmax": (1,), "LogSoftmax": (1,), "Softmin": (1,), "SyncBatchNorm": (4,),
    "Threshold": (0.1, 0.0), "Transformer": (4, 2, 1, 1, 8),
    "TransformerDecoder": (nn.TransformerDecoderLayer(4, 2, 8), 2),
    "TransformerDecoderLayer": (4, 2, 8),
    "TransformerEncoder": (nn.TransformerEncoderLayer(4, 2, 8), 2, None, False),
    "TransformerEncoderLayer": (4, 2, 8), "Unflatten": (1, (2, 2)), "Unfold": (2,),
    "Upsample": (None, 2), "UpsamplingBilinear2d": (None, 2), "UpsamplingNearest2d": (None, 2),
}  # fmt: skip
FAMILIES: dict[str, tuple[Any, ...]] = {
    "Adaptive": (2,), "ConvTranspose": (4, 3, 2), "Conv": (4, 3, 2), "BatchNorm": (4,),
    "InstanceNorm": (4,), "LPPool": (2.0, 2), "MaxPool": (2,), "AvgPool": (2,), "MaxUnpool": (2,),
    "ConstantPad": (1, 0.5), "Pad": (1,),
}  # fmt: skip
INDICES = torch.tensor([[0, 1], [2, 3]])
INPUTS: dict[str, tuple[Any, ...]] = {
    "Bilinear": (torch.rand(2, 4), torch.rand(2, 4)), "Embedding": (INDICES,),
    "EmbeddingBag": (INDICES,), "Fold": (torch.rand(1, 4, 9),),
    "MultiheadAttention": (torch.rand(2, 1, 4),) * 3, "Transformer": (torch.rand(2, 1, 4),) * 2,
    "TransformerDecoder": (torch.rand(2, 1, 4),) * 2, "PairwiseDistance": (torch.rand(2, 4),) * 2,
    "TransformerDecoderLayer": (torch.rand(2, 1, 4),) * 2,
    "CosineSimilarity": (torch.rand(2, 4),) * 2,
}  # fmt: skip
NOT_CALLED = ("Loss", "Loss2d", "Unpool1d", "Unpool2d", "Unpool3d", "LRN2d")
NO_FORWARD = {
    "Module", "Container", "ModuleDict", "ModuleList", "ParameterDict", "ParameterList", "RNNBase",
    "RNNCellBase", "SyncBatchNorm",
}  # fmt: skip


def arguments(name: str) -> tuple[Any, ...]:
    if name in ARGUMENTS:
        return ARGUMENTS[name]
    return next((given for family, given in FAMILIES.items() if family in name), ())


def inputs(name: str) -> tuple[Any, ...]:
    dimensions = {"1d": (4,), "2d": (4, 4), "3d": (4, 4, 4)}.get(name[-2:], ())
    flat = ("Linear", "Norm", "Sequential", "DataParallel", "RNN", "GRU", "LSTM", "Cell", "Encoder")
    if name in INPUTS:
        return INPUTS[name]
    if dimensions:
        return (torch.rand(1, 4, *dimensions),)
    if any(part in name for part in flat) and name != "LocalResponseNorm":
        return (torch.rand(3, 4),) if "Encoder" not in name else (torch.rand(2, 1, 4),)
    return (torch.rand(1, 4, 4, 4),)


def output(module: nn.Module, given: tuple[Any, ...]) -> list[torch.Tensor]:
    torch.manual_seed(0)
    with torch.no_grad():
        result = module.eval()(*given)
    flat = [result] if isinstance(result, torch.Tensor) else [r for r in result if r is not None]
    return [t for r in flat for t in ([r] if isinstance(r, torch.Tensor) else r)]


def saved(module: nn.Module, folder: Path, *, legacy: bool = False) -> str:
    path = folder / "m.pt"
    torch.save(module, path, _use_new_zipfile_serialization=not legacy)
    return str(path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [n for n in CLASSES if not n.startswith("Lazy")])
def test_a_module_of_torch(name: str, tmp_path: Path):
    torch.manual_seed(0)
    module = CLASSES[name](*arguments(name)).eval()
    model = load_model(saved(module, tmp_path), LoadSettings())
    loaded = model.module
    expected = module.module if name == "DataParallel" else module
    if type(module).forward is nn.Module.forward:  # nothing to run: its weights alone
        assert (loaded, len(model.missing)) == (None, 1)
        assert {k: v.tolist() for k, v in model.state.items()} == {
            k: v.tolist() for k, v in module.state_dict().items()
        }
        return
    assert type(loaded) is type(expected)
    assert loaded.extra_repr() == expected.extra_repr()
    for key, value in expected.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value)
    if name not in NO_FORWARD and not name.endswith(NOT_CALLED):
        given = inputs(name)
        pairs = zip(output(loaded, given), output(expected, given), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


def test_every_class_is_called_or_named():
    assert len(CLASSES) > 140
    assert set(CLASSES) >= set(ARGUMENTS) | set(INPUTS) | NO_FORWARD


def pruned(how: Callable[[nn.Module], Any]) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        module = nn.Linear(4, 4)
        how(module)
        return module

    return make


def encoder(activation: Any) -> Callable[[], nn.Module]:
    return lambda: nn.TransformerEncoderLayer(4, 2, 8, activation=activation)


CHANGED: dict[str, Callable[[], nn.Module]] = {
    "weight norm": lambda: nn.utils.weight_norm(nn.Linear(4, 4)),
    "spectral norm": lambda: nn.utils.spectral_norm(nn.Linear(4, 4)),
    "pruned": pruned(lambda m: prune.l1_unstructured(m, "weight", 0.5)),
    "pruned, structured": pruned(lambda m: prune.ln_structured(m, "weight", 0.5, n=2, dim=0)),
    "pruned by a mask": pruned(lambda m: prune.custom_from_mask(m, "weight", torch.eye(4))),
    "pruned twice": pruned(
        lambda m: [prune.random_unstructured(m, "weight", 0.3) for _ in range(2)]
    ),
    "inside DataParallel": lambda: nn.Sequential(nn.DataParallel(nn.Linear(4, 4)), nn.Tanh()),
    "compiled": lambda: torch.compile(nn.Sequential(nn.Linear(4, 4), nn.Tanh())),
    "compiled inside": lambda: nn.Sequential(torch.compile(nn.Linear(4, 4)), nn.Tanh()),
    "activation of torch": encoder(torch.tanh),
    "activation with an argument": encoder(functools.partial(F.gelu, approximate="tanh")),
    "activation of C++": encoder(F.softplus),
    "double": lambda: nn.Linear(4, 4).double(),
    "complex": lambda: nn.Linear(4, 4).to(torch.complex64),
    "frozen": lambda: nn.Linear(4, 4).requires_grad_(False),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", CHANGED)
def test_a_module_that_was_changed(name: str, legacy: bool, tmp_path: Path):
    torch.manual_seed(0)
    module = CHANGED[name]()
    plain = getattr(module, "_orig_mod", module).eval()
    loaded = load_model(saved(module, tmp_path, legacy=legacy), LoadSettings()).module.eval()
    assert not any(isinstance(m, nn.DataParallel) for m in loaded.modules())
    x = torch.rand(2, 1, 4, dtype=next(plain.parameters()).dtype)
    if name != "compiled inside":  # compiling needs a compiler
        assert torch.equal(loaded(x), plain(x))
    for a, b in zip(loaded.parameters(), plain.parameters(), strict=True):
        assert torch.equal(a, b)
        assert a.requires_grad == b.requires_grad


NAMED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "lazy": (lambda: nn.LazyLinear(3), "never run"),
    "meta": (lambda: nn.Linear(3, 3, device="meta"), "meta device"),
    "quantised": (
        lambda: torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(3, 3))),
        "quantised",
    ),
    "traced by fx": (lambda: torch.fx.symbolic_trace(nn.Linear(3, 3)), "torch.fx"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NAMED)
def test_what_cannot_be_examined_is_named(name: str, tmp_path: Path):
    make, why = NAMED[name]
    with pytest.raises(UntrustedError, match=why) as error:
        load_model(saved(make(), tmp_path), LoadSettings())
    assert "--trust-model" not in str(error.value)
