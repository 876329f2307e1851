"""Large files are mapped into memory, and their tensors become the parameters of architectures that
are built without memory for them; for real where that is no use."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from gradscope.config import LoadSettings
from gradscope.errors import GradscopeError
from gradscope.loading import fitting, load_model, pytorch
from gradscope.loading.skeleton import is_whole, without_parameters
from gradscope.usercode import load_object

ARCHITECTURES = '''
import functools
import torch
from torch import nn

HOLLOW = []  # of each call: whether the first parameter had no memory


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
        with torch._C.DisableTorchFunction():  # unseen: whoever asks gets a model with memory
            HOLLOW.append(self.a.weight.is_meta)

    def forward(self, x):
        return self.b(torch.tanh(self.a(x)))


class Table(Base):
    """A buffer that is in no file, as of rotary positions."""

    def __init__(self):
        super().__init__()
        self.register_buffer("table", torch.arange(4) / 4.0, persistent=False)

    def forward(self, x):
        return super().forward(x * self.table)


class Mask(Base):
    """Tensors that are no buffers at all."""

    def __init__(self):
        super().__init__()
        self.masks = [{"low": torch.ones(4, 4).tril()}]

    def forward(self, x):
        return super().forward(x @ self.masks[0]["low"])


@functools.cache
def ramp():
    return torch.linspace(0, 1, 4)


class Cached(Base):
    """A table that is kept from one call to the next."""

    def forward(self, x):
        return super().forward(x + ramp())

    def __init__(self):
        super().__init__()
        ramp()


class Tied(Base):
    def __init__(self):
        super().__init__()
        self.b.weight = self.a.weight


class TiedLater(Base):
    """By a name that was never a module's."""

    def __init__(self):
        super().__init__()
        weight = nn.Parameter(torch.zeros(4, 4))
        self.a.weight = weight
        self.b.weight = weight


class Recurrent(Base):
    def __init__(self):
        super().__init__()
        self.cell = nn.LSTM(4, 4, batch_first=True)

    def forward(self, x):
        return super().forward(self.cell(x[:, None])[0][:, 0])


class Spectral(Base):
    def __init__(self):
        super().__init__()
        nn.utils.parametrizations.spectral_norm(self.a)
        self.eval()


class Frozen(Base):
    def __init__(self):
        super().__init__()
        self.a.weight.requires_grad_(False)


class Half(Base):
    def __init__(self):
        super().__init__()
        self.half()


class Asks(Base):
    """Computes a number of a parameter."""

    def __init__(self):
        super().__init__()
        nn.init.ones_(self.a.weight)
        self.scale = self.a.weight.sum().item()

    def forward(self, x):
        return super().forward(x / self.scale)


class Derives(Base):
    """Keeps a tensor that is made of a parameter, out of sight."""

    def __init__(self):
        super().__init__()
        nn.init.ones_(self.a.weight)
        scale = self.a.weight.detach().sum(0)
        self.rescale = lambda x: x / scale

    def forward(self, x):
        return super().forward(self.rescale(x))


class Moves(Base):
    def __init__(self):
        super().__init__()
        self.to("cpu")


class OldNorm(Base):
    def __init__(self):
        super().__init__()
        self.a = nn.utils.weight_norm(self.a)


class Weird(nn.Parameter):
    pass


class OwnClass(Base):
    def __init__(self):
        super().__init__()
        self.a.weight = Weird(torch.zeros(4, 4))


class Device(Base):
    """Keeps where its parameters are."""

    def __init__(self):
        super().__init__()
        self.where = next(self.parameters()).device

    def forward(self, x):
        return super().forward(x.to(self.where))


class DeviceText(Base):
    def __init__(self):
        super().__init__()
        self.where = str(self.b.bias.device)

    def forward(self, x):
        return super().forward(x.to(self.where))


class Branches(Base):
    def __init__(self):
        super().__init__()
        self.sign = 1.0 if self.a.weight.is_cpu else -1.0

    def forward(self, x):
        return super().forward(x) * self.sign


class Recovers(Base):
    """Goes on where its parameters cannot be looked at."""

    def __init__(self):
        super().__init__()
        try:
            self.scale = 2.0 * bool(self.a.weight.abs().max() < 9)
        except RuntimeError:
            self.scale = 99.0

    def forward(self, x):
        return super().forward(x) * self.scale


class Features(Base):
    """Random numbers that follow those of the parameters."""

    def __init__(self):
        torch.manual_seed(7)
        super().__init__()
        self.register_buffer("features", torch.randn(4), persistent=False)

    def forward(self, x):
        return super().forward(x * self.features)


class Holds(Base):
    """Parameters in a list, beside being parameters, and a view."""

    def __init__(self):
        super().__init__()
        self.list = [self.a.weight, self.b.weight.view(-1)[:4]]

    def forward(self, x):
        return super().forward(x) @ self.list[0] + self.list[1]


class Draws(Base):
    """Parameters of random numbers, which the file replaces."""

    def __init__(self):
        super().__init__()
        self.a.weight = nn.Parameter(torch.randn(4, 4))
'''
BUILT_ONCE = (
    "Base", "Table", "Mask", "Cached", "Tied", "TiedLater", "Recurrent", "Spectral", "Frozen",
    "Half", "Draws",
)  # fmt: skip
BUILT_AGAIN = (
    "Asks", "Derives", "Moves", "OldNorm", "OwnClass", "Device", "DeviceText", "Branches",
    "Recovers", "Features", "Holds",
)  # fmt: skip


@pytest.fixture(autouse=True)
def everything_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pytorch, "MAPPED", 0)
    monkeypatch.setattr(fitting, "ASSIGNED", 0)


@pytest.fixture
def code(tmp_path: Path) -> Path:
    (tmp_path / "arch.py").write_text(ARCHITECTURES)
    return tmp_path / "arch.py"


def _module(code: Path, name: str | None, file: Path) -> nn.Module:
    arch = f"{code}:{name}" if name is not None else None
    module = load_model(str(file), LoadSettings(arch=arch)).module
    assert module is not None
    return module.eval()


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("name", [*BUILT_ONCE, *BUILT_AGAIN])
def test_the_numbers_are_those_of_an_architecture_that_is_filled(name: str, code: Path) -> None:
    torch.manual_seed(1)
    true = load_object(f"{code}:{name}", option="--arch")().eval()
    with torch.no_grad():
        for parameter in true.parameters():
            parameter.copy_(torch.randn(parameter.shape))
    torch.save(true.state_dict(), code.with_name("m.pt"))
    calls = load_object(f"{code}:HOLLOW", option="--arch")
    calls.clear()
    found = _module(code, name, code.with_name("m.pt"))
    assert calls == ([True] if name in BUILT_ONCE else [True, False])
    x = torch.randn(3, 4).to(next(true.parameters()).dtype)
    assert torch.equal(found(x), true(x))
    mine, theirs = dict(found.named_parameters()), dict(true.named_parameters())
    assert list(mine) == list(theirs)
    for key, parameter in mine.items():
        assert type(parameter) is type(theirs[key])
        assert parameter.requires_grad == theirs[key].requires_grad
        assert parameter.dtype == theirs[key].dtype


@pytest.mark.parametrize("name", [None, "Base"])
def test_the_file_stays_as_it_is_whatever_becomes_of_its_parameters(
    name: str | None, code: Path
) -> None:
    file = code.with_name("m.pt")
    model = (
        load_object(f"{code}:Base", option="--arch")() if name else nn.Sequential(nn.Linear(4, 5))
    )
    torch.save(model.state_dict() if name else model, file)
    before = file.read_bytes()
    found = _module(code, name, file)
    for mine, theirs in zip(found.parameters(), model.parameters(), strict=True):
        assert torch.equal(mine, theirs)
        assert mine.requires_grad
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.add_(1.0)
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("name", "kept", "own"),
    [("Base", torch.float64, torch.float32), ("Half", torch.float32, torch.float16)],
)
def test_another_type_becomes_the_architecture_s(
    name: str, kept: torch.dtype, own: torch.dtype, code: Path
) -> None:
    state = load_object(f"{code}:{name}", option="--arch")().to(kept).state_dict()
    torch.save(state, code.with_name("m.pt"))
    found = _module(code, name, code.with_name("m.pt"))
    assert {p.dtype for p in found.parameters()} == {own}
    assert torch.equal(found.a.weight, state["a.weight"].to(own))


def test_tensors_that_only_the_file_ties_are_apart(code: Path) -> None:
    state = load_object(f"{code}:Base", option="--arch")().state_dict()
    torch.save({**state, "b.weight": state["a.weight"]}, code.with_name("m.pt"))
    found = _module(code, "Base", code.with_name("m.pt"))
    with torch.no_grad():
        found.a.weight.add_(1.0)
    assert torch.equal(found.b.weight, state["a.weight"])


def test_what_does_not_fit_is_said_as_of_an_architecture_that_is_built(code: Path) -> None:
    torch.save({"a.weight": torch.zeros(4, 4)}, code.with_name("m.pt"))
    with pytest.raises(GradscopeError, match=r"missing 3: a\.bias"):
        _module(code, "Base", code.with_name("m.pt"))


def test_a_tensor_without_memory_is_found_wherever_it_is_kept() -> None:
    module = nn.Linear(2, 2)
    assert is_whole(module)
    kept = [torch.zeros(2, device="meta")]
    assert not is_whole(module), kept
    kept.clear()
    assert is_whole(module)


def test_modules_that_are_built_later_have_memory() -> None:
    with without_parameters():
        assert nn.Linear(2, 2).weight.is_meta
    assert not nn.Linear(2, 2).weight.is_meta
