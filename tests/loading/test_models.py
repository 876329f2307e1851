"""Model files that open, and how."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import nn

from gradscope.config import LoadSettings
from gradscope.errors import GradscopeError, LoadError, OptionError, UntrustedError
from gradscope.loading import load_model

WHOLE = {
    "mlp": lambda: nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)),
    "cnn": lambda: nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Dropout(), nn.Linear(4, 2), nn.Softmax(dim=1),
    ),
    "lstm": lambda: nn.LSTM(4, 3, 2, bidirectional=True),
    "gru": lambda: nn.GRU(4, 3),
    "rnn": lambda: nn.RNN(4, 3, nonlinearity="relu"),
    "encoder": lambda: nn.TransformerEncoder(
        nn.TransformerEncoderLayer(8, 2, 16, activation="gelu"), 2, enable_nested_tensor=False
    ),
    "transformer": lambda: nn.Transformer(8, 2, 1, 1, 16, batch_first=True),
    "spectral norm": lambda: nn.Sequential(nn.utils.spectral_norm(nn.Linear(3, 3))),
    "tied": lambda: (lambda m: (setattr(m[1], "weight", m[0].weight), m)[1])(
        nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    ),
    "half": lambda: nn.Linear(3, 3).half(),
    "named": lambda: nn.Sequential(OrderedDict({"a b/c": nn.Linear(3, 3)})),
}  # fmt: skip


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", WHOLE)
def test_whole_modules_of_torch_open_without_any_flag(name, legacy, tmp_path):
    torch.manual_seed(0)
    module = WHOLE[name]()
    path = tmp_path / "m.pt"
    torch.save(module, path, _use_new_zipfile_serialization=not legacy)
    loaded = load_model(str(path), LoadSettings()).module
    assert type(loaded) is type(module)
    expected = module.state_dict()
    assert {k: v.tolist() for k, v in loaded.state_dict().items()} == {
        k: v.tolist() for k, v in expected.items()
    }


SOURCE = """
from torch import nn

class Net(nn.Module):
    def __init__(self, width=3):
        super().__init__()
        self.layer = nn.Linear(width, 2)

    def forward(self, x):
        return self.layer(x)

ready = Net()
"""


@pytest.fixture
def net(tmp_path: Path) -> Path:
    path = tmp_path / "net.py"
    path.write_text(SOURCE)
    return path


def save_script_model(tmp_path: Path) -> Path:
    """Saved as from a script: its class is ``__main__.Net``."""
    space: dict = {"__name__": "__main__"}
    exec(SOURCE, space)
    import sys

    main = sys.modules["__main__"]
    main.Net = space["Net"]
    try:
        torch.save(space["Net"](), tmp_path / "m.pt")
    finally:
        del main.Net
    return tmp_path / "m.pt"


def test_a_model_saved_from_a_script(tmp_path, net):
    path = save_script_model(tmp_path)
    with pytest.raises(UntrustedError, match=r"--allow __main__\.Net=FILE\.py:Net"):
        load_model(str(path), LoadSettings())
    opened = load_model(str(path), LoadSettings(allow=(f"__main__.Net={net}:Net",)))
    assert type(opened.module).__name__ == "Net"


STATES = {
    "plain": lambda sd: sd,
    "data-parallel": lambda sd: {f"module.{k}": v for k, v in sd.items()},
    "compiled": lambda sd: {f"_orig_mod.{k}": v for k, v in sd.items()},
    "both": lambda sd: {f"_orig_mod.module.{k}": v for k, v in sd.items()},
    "nested": lambda sd: {"epoch": 3, "state_dict": sd, "optimizer": {"x": torch.zeros(9)}},
    "model_state_dict": lambda sd: {"model_state_dict": sd, "loss": 0.1},
    "model": lambda sd: {"model": {f"module.{k}": v for k, v in sd.items()}},
    "deep": lambda sd: {"checkpoint": {"net": sd}},
}


@pytest.mark.parametrize("name", STATES)
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_state_dicts_with_an_architecture(name, legacy, tmp_path, net):
    torch.manual_seed(3)
    state = {"layer.weight": torch.randn(2, 3), "layer.bias": torch.randn(2)}
    path = tmp_path / "s.pt"
    torch.save(STATES[name](state), path, _use_new_zipfile_serialization=not legacy)
    model = load_model(str(path), LoadSettings(arch=f"{net}:Net"))
    assert torch.equal(model.module.layer.weight, state["layer.weight"])
    if name in ("data-parallel", "compiled", "both"):
        assert any("prefix" in n for n in model.notes)
    if name in ("nested", "deep"):
        assert any("taken from" in n for n in model.notes)


def test_a_state_dict_without_architecture_says_what_is_missing(tmp_path):
    path = tmp_path / "s.pt"
    torch.save({"w": torch.zeros(2)}, path)
    model = load_model(str(path), LoadSettings())
    assert model.module is None
    assert set(model.state) == {"w"}
    assert "--arch" in model.missing[0][1]


def test_keys_that_do_not_fit_are_listed(tmp_path, net):
    path = tmp_path / "s.pt"
    torch.save({"layer.weight": torch.zeros(2, 9), "other": torch.zeros(1)}, path)
    with pytest.raises(LoadError) as error:
        load_model(str(path), LoadSettings(arch=f"{net}:Net"))
    text = str(error.value)
    for part in ("missing 1: layer.bias", "unexpected 1: other", "(2, 9)", "(2, 3)"):
        assert part in text


def test_arguments_and_instances_of_architectures(tmp_path, net):
    path = tmp_path / "s.pt"
    torch.save({"layer.weight": torch.ones(2, 7), "layer.bias": torch.ones(2)}, path)
    settings = LoadSettings(arch=f"{net}:Net", arch_args={"width": 7})
    assert load_model(str(path), settings).module.layer.in_features == 7
    torch.save({"layer.weight": torch.ones(2, 3), "layer.bias": torch.ones(2)}, path)
    assert load_model(str(path), LoadSettings(arch=f"{net}:ready")).module is not None
    with pytest.raises(OptionError, match="--arch-args"):
        load_model(str(path), LoadSettings(arch=f"{net}:Net", arch_args={"depth": 7}))


@pytest.mark.parametrize("allow", ["a b", "=x", "__main__.Net=nothing.py:Net", "no_such_thing"])
def test_allow_that_makes_no_sense(allow, tmp_path):
    path = tmp_path / "s.pt"
    torch.save(nn.Linear(2, 2), path)
    with pytest.raises(GradscopeError) as error:
        load_model(str(path), LoadSettings(allow=(allow,)))
    assert "\n" not in str(error.value)


def test_numpy_numbers_in_a_checkpoint_are_harmless(tmp_path):
    import numpy as np

    path = tmp_path / "s.pt"
    torch.save({"state_dict": {"w": torch.zeros(2)}, "best": np.float64(0.5)}, path)
    assert load_model(str(path), LoadSettings()).state.keys() == {"w"}
