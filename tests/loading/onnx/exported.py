"""Networks of the common kinds, and their exports by both of torch's exporters."""

from __future__ import annotations

import contextlib
import io
import logging
import math
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.architectures import Written

Built = tuple[nn.Module, dict[str, Tensor]]


def seen(module: nn.Module) -> nn.Module:
    """Batch norms as after training: statistics and factors of their own."""
    for child in module.modules():
        if isinstance(child, nn.BatchNorm2d):
            child.running_mean.normal_(std=0.2)
            child.running_var.uniform_(0.5, 2)
            child.num_batches_tracked += 5
            nn.init.uniform_(child.weight, 0.7, 1.3)
            nn.init.normal_(child.bias, std=0.1)
    return module


class Recurrent(nn.Module):
    """A recurrent layer read out at its last step."""

    def __init__(self, kind: type[nn.RNNBase], **options: bool | int) -> None:
        super().__init__()
        self.cells = kind(5, 6, batch_first=True, **options)
        self.head = nn.Linear(12 if options.get("bidirectional") else 6, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores."""
        return self.head(self.cells(x)[0][:, -1])


class Encoder(nn.Module):
    """torch's own encoder between two dense layers."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.1, batch_first=True)
        self.enter, self.encoder = nn.Linear(4, 8), nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores."""
        return self.head(self.encoder(self.enter(x)).mean(dim=1))


class Residual(nn.Module):
    """Two convolutions with batch norm, and a way around them that narrows the picture."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(after), nn.BatchNorm2d(after)
        self.around = nn.Sequential(
            nn.Conv2d(before, after, 1, stride=2, bias=False), nn.BatchNorm2d(after)
        )

    def forward(self, x: Tensor) -> Tensor:
        """relu(f(x) + g(x))."""
        h = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(h)) + self.around(x))


class Inverted(nn.Module):
    """Wider, each channel by itself, weighed by a gate, narrower, and around."""

    def __init__(self, width: int) -> None:
        super().__init__()
        wide = 3 * width
        self.widen = nn.Sequential(
            nn.Conv2d(width, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU6()
        )
        self.apart = nn.Sequential(
            nn.Conv2d(wide, wide, 3, padding=1, groups=wide, bias=False),
            nn.BatchNorm2d(wide),
            nn.Hardswish(),
        )
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(wide, 4, 1), nn.ReLU(), nn.Conv2d(4, wide, 1),
            nn.Sigmoid(),
        )  # fmt: skip
        self.narrow = nn.Sequential(nn.Conv2d(wide, width, 1, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        """x + f(x)."""
        h = self.apart(self.widen(x))
        return x + self.narrow(h * self.gate(h))


class Masked(nn.Module):
    """Attention written out, over the tokens that a mask admits."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(6, 6) for _ in range(3))
        self.norm, self.up, self.head = nn.LayerNorm(6), nn.Linear(6, 10), nn.Linear(10, 3)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Class scores of each token; ``mask`` is true where a token may be looked at."""
        scores = self.q(x) @ self.k(x).transpose(1, 2) / math.sqrt(6)
        scores = scores.masked_fill(~mask.unsqueeze(1), -1e9)
        h = self.norm(x + torch.softmax(scores, dim=-1) @ self.v(x))
        return self.head(F.gelu(self.up(h)))


class Causal(nn.Module):
    """Attention by torch's fused operation; each token sees those before it."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.mix, self.head = nn.Linear(8, 24), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores of each token."""
        n, t, _ = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.head(F.silu(self.mix(mixed.transpose(1, 2).reshape(n, t, 8))))


class Branch(nn.Module):
    """One of two layers, by what comes in."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.head = nn.Linear(4, 6), nn.Linear(6, 3)
        self.low, self.high = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores."""
        h = torch.tanh(self.enter(x))
        return self.head(
            torch.tanh(self.high(h)) if bool(x.sum() > 0) else torch.sigmoid(self.low(h))
        )


class Conditional(Branch):
    """The same for the newer exporter, which asks for it in other words."""

    def forward(self, x: Tensor) -> Tensor:
        """Class scores."""
        h = torch.tanh(self.enter(x))
        h = torch.cond(
            x.sum() > 0, lambda h: torch.tanh(self.high(h)),
            lambda h: torch.sigmoid(self.low(h)), (h,),
        )  # fmt: skip
        return self.head(h)


class Repeated(nn.Module):
    """One layer as many times as there are steps in what comes in."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.step, self.head = nn.Linear(3, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores."""
        h = torch.zeros(x.shape[0], 6)
        for i in range(x.shape[1]):
            h = torch.tanh(self.step(h) + self.enter(x[:, i]))
        return self.head(h)


def mlp() -> nn.Module:
    """Dense layers."""
    return nn.Sequential(
        nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.Sigmoid(), nn.Linear(8, 8), nn.Tanh(),
        nn.Linear(8, 3),
    )  # fmt: skip


def cnn() -> nn.Module:
    """Convolutions with batch norm, and one batch norm that nothing can be folded into."""
    return nn.Sequential(
        nn.BatchNorm2d(2), nn.Conv2d(2, 5, 3, padding=1), nn.BatchNorm2d(5), nn.Tanh(),
        nn.MaxPool2d(2), nn.Conv2d(5, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(),
        nn.Linear(24, 3),
    )  # fmt: skip


def resnet() -> nn.Module:
    """Two blocks with skip connections."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(), Residual(4, 6),
        Residual(6, 8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3),
    )  # fmt: skip


def mobilenet() -> nn.Module:
    """Separable convolutions with squeeze and excitation."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(4), nn.Hardswish(),
        Inverted(4), Inverted(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3),
    )  # fmt: skip


def _x(*shape: int) -> dict[str, Tensor]:
    return {"x": torch.randn(6, *shape)}


def _masked() -> dict[str, Tensor]:
    lengths = torch.tensor([5, 2, 4, 1, 3, 5])
    return {"x": torch.randn(6, 5, 6), "mask": torch.arange(5) < lengths.unsqueeze(1)}


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[], dict[str, Tensor]]]] = {
    "mlp": (mlp, lambda: _x(6)),
    "cnn": (cnn, lambda: _x(2, 8, 8)),
    "lstm": (lambda: Recurrent(nn.LSTM), lambda: _x(7, 5)),
    "gru": (lambda: Recurrent(nn.GRU), lambda: _x(7, 5)),
    "bidirectional": (lambda: Recurrent(nn.LSTM, bidirectional=True), lambda: _x(7, 5)),
    "stacked": (
        lambda: Recurrent(nn.GRU, num_layers=2, bidirectional=True), lambda: _x(7, 5)
    ),
    "encoder": (Encoder, lambda: _x(5, 4)),
    "clones": (Encoder, lambda: _x(5, 4)),
    "resnet": (resnet, lambda: _x(3, 8, 8)),
    "mobilenet": (mobilenet, lambda: _x(3, 8, 8)),
    "masked": (Masked, _masked),
    "causal": (Causal, lambda: _x(5, 8)),
    "written": (Written, lambda: _x(6)),
    "if": (Branch, lambda: _x(4)),
    "loop": (Repeated, lambda: _x(5, 3)),
}  # fmt: skip


def built(name: str) -> Built:
    """A seeded network in eval mode, and its inputs."""
    torch.manual_seed(0)
    make, inputs = MODELS[name]
    module = seen(make()).eval()
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.1 * torch.randn_like(p))
    if name == "clones":
        module.encoder.layers[1].load_state_dict(module.encoder.layers[0].state_dict())
    return module, inputs()


def exported(name: str, built: Built, path: Path, *, dynamo: bool, opset: int) -> None:
    """Written to a file, for any number of samples; control flow by way of a script."""
    module, inputs = built
    options = {"opset_version": opset, "input_names": list(inputs), "output_names": ["y"]}
    if dynamo:
        options["dynamic_shapes"] = tuple({0: torch.export.Dim("n", min=2)} for _ in inputs)
        options["verbose"], options["external_data"] = False, False
        if name == "if":
            weights, module = module.state_dict(), Conditional()
            module.load_state_dict(weights)
    else:
        options["dynamic_axes"] = {n: {0: "n"} for n in inputs}
    with quiet(), fast_path_off(), torch.no_grad():
        if not dynamo and name in ("if", "loop"):
            module = torch.jit.script(module)
        torch.onnx.export(module, tuple(inputs.values()), str(path), dynamo=dynamo, **options)


@contextlib.contextmanager
def fast_path_off() -> Iterator[None]:
    """The encoder's fused layer, which the older exporter does not know."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without what the exporters say of themselves."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
