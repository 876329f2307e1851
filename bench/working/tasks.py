"""What each net of ``nets.py`` is trained on, and from which score it works."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from bench.working import nets

Arrays = Mapping[str, np.ndarray]
BATCH = 64


@dataclass(frozen=True)
class Task:
    """One net and its work.

    Attributes:
        name: of the factory in ``nets.py``.
        about: net and data, for the report.
        data: arrays by the names of forward's arguments, and ``y``; the last quarter is held out.
        loss: of an output and ``y``.
        score: of the same, on held-out data.
        works: the least score of a net that works.
        steps, rate: of Adam.
        labels: whether ``y`` is what ``inspect`` calls labels of the first output.
        option: of ``--loss``.
        prepare: makes a net that something stands in already.
    """

    name: str
    about: str
    data: Callable[[], Arrays]
    loss: Callable[[Any, torch.Tensor], torch.Tensor]
    score: Callable[[Any, torch.Tensor], float]
    works: float
    steps: int = 600
    rate: float = 3e-3
    labels: bool = True
    option: str = "auto"
    prepare: Callable[[nn.Module], None] | None = None


@dataclass(frozen=True)
class Made:
    """A trained net, its score, and all arrays."""

    net: nn.Module
    score: float
    arrays: Arrays


def make(task: Task, seed: int = 0) -> Made:
    """Train it, the same for the same seed."""
    torch.manual_seed(seed)
    arrays = task.data()
    net = nets.ALL[task.name]()
    if task.prepare is not None:
        task.prepare(net)
    rows = np.random.default_rng(seed)
    inputs = [torch.from_numpy(v) for k, v in arrays.items() if k != "y"]
    y = torch.from_numpy(arrays["y"])
    kept = len(y) * 3 // 4
    trained = [p for p in net.parameters() if p.requires_grad]
    optimiser = torch.optim.Adam(trained, lr=task.rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, task.steps)
    net.train()
    for _ in range(task.steps):
        index = torch.from_numpy(rows.integers(0, kept, BATCH))
        loss = task.loss(net(*[x[index] for x in inputs]), y[index])
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 5.0)
        optimiser.step()
        schedule.step()
    net.eval()
    with torch.no_grad():
        score = task.score(net(*[x[kept:] for x in inputs]), y[kept:])
    return Made(net, score, arrays)


@cache
def _digits() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    found = load_digits()
    order = np.random.default_rng(0).permutation(len(found.target))
    x = ((found.data - 4.88) / 6.02).astype(np.float32)
    return x[order], found.target[order].astype(np.int64)


def _flat() -> Arrays:
    x, y = _digits()
    return {"x": x, "y": y}


def _images() -> Arrays:
    x, y = _digits()
    return {"x": x.reshape(-1, 1, 8, 8), "y": y}


def _sequence() -> Arrays:
    x, y = _digits()
    return {"x": x.reshape(-1, 64, 1), "y": y}


def _points() -> Arrays:
    """Pixels with their places."""
    x, y = _digits()
    axis = np.linspace(-1, 1, 8, dtype=np.float32)
    place = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(1, 64, 2)
    return {"x": np.concatenate([x[..., None], np.repeat(place, len(x), 0)], -1), "y": y}


def _mirrored() -> Arrays:
    x, y = _digits()
    return {"x": x.reshape(-1, 8, 8)[:, :, ::-1].reshape(-1, 64).copy(), "y": y}


def _ink() -> Arrays:
    x, _ = _digits()
    noise = np.random.default_rng(1).normal(0, 0.5, x.shape).astype(np.float32)
    image = (x > 0.5).astype(np.float32).reshape(-1, 1, 8, 8)
    return {"x": (x + noise).reshape(-1, 1, 8, 8), "y": image}


def _itself() -> Arrays:
    x, _ = _digits()
    x = ((x * 6.02 + 4.88) / 16).astype(np.float32)
    return {"x": x, "y": x}


def _properties() -> Arrays:
    x, y = _digits()
    every = [y % 2 == 0, y > 4, np.isin(y, (0, 6, 8, 9)), np.isin(y, (2, 3, 5, 7))]
    return {"x": x, "y": np.stack(every, 1).astype(np.float32)}


def _rows_of_three() -> Arrays:
    x, y = _digits()
    which = np.random.default_rng(2).integers(0, len(y), (3000, 3))
    images = x.reshape(-1, 8, 8)[which]  # [N, 3, row, column]
    return {"x": images.transpose(0, 1, 3, 2).reshape(3000, 24, 8).copy(), "y": y[which]}


def _table(name: str) -> Arrays:
    from sklearn import datasets

    found = getattr(datasets, f"load_{name}")()
    order = np.random.default_rng(0).permutation(len(found.target))
    x = ((found.data - found.data.mean(0)) / found.data.std(0)).astype(np.float32)
    return {"x": x[order], "y": found.target[order].astype(np.int64)}


def _cancer() -> Arrays:
    found = _table("breast_cancer")
    return {"x": found["x"], "y": found["y"].astype(np.float32)[:, None]}


def _backwards() -> Arrays:
    tokens = np.random.default_rng(3).integers(2, 12, (4000, 6))
    turned = tokens[:, ::-1].copy()
    begun = np.concatenate([np.ones((4000, 1), np.int64), turned[:, :-1]], 1)
    return {"src": tokens, "tgt": begun, "y": turned}


def _picture() -> Arrays:
    """Colours of a photograph by their places."""
    from sklearn.datasets import load_sample_image

    image = load_sample_image("flower.jpg")[::10, ::10].astype(np.float32) / 127.5 - 1
    h, w = image.shape[:2]
    axes = np.meshgrid(np.linspace(-1, 1, h), np.linspace(-1, 1, w), indexing="ij")
    place = np.stack(axes, -1).reshape(-1, 2).astype(np.float32)
    order = np.random.default_rng(4).permutation(h * w)
    return {"x": place[order], "y": image.reshape(-1, 3)[order]}


def _moons() -> Arrays:
    from sklearn.datasets import make_moons

    x, y = make_moons(4000, noise=0.05, random_state=0)
    return {"x": x.astype(np.float32), "y": y}


def _arcs() -> Arrays:
    """Two branches: x says too little for one answer."""
    random = np.random.default_rng(5)
    x = random.uniform(-1, 1, (4000, 1)).astype(np.float32)
    side = random.choice([-1.0, 1.0], (4000, 1))
    y = side * (1 - 0.5 * x**2) + random.normal(0, 0.05, x.shape)
    return {"x": x, "y": y.astype(np.float32)}


def _tokens() -> Arrays:
    random = np.random.default_rng(6)
    tokens = random.integers(1, 20, (4000, 12))
    return {"tokens": tokens, "y": ((tokens == 3).sum(1) >= (tokens == 4).sum(1)).astype(np.int64)}


def _right(output: Any, y: torch.Tensor) -> float:
    scores = output[0] if isinstance(output, tuple) else output
    return float((scores.argmax(-1) == y).double().mean())


def _cross(output: Any, y: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(output.flatten(0, -2), y.flatten())


def _skill(output: Any, y: torch.Tensor) -> float:
    made = output[0] if isinstance(output, tuple) else output
    return float(1 - F.mse_loss(made, y) / y.var(0).mean())


def _same_side(middle: float, output: torch.Tensor, y: torch.Tensor) -> float:
    return float(((output > middle) == (y > 0.5)).double().mean())


def _log_density(output: Any, y: torch.Tensor) -> torch.Tensor:
    z, log = output
    return -0.5 * (z**2).sum(1) - np.log(2 * np.pi) + log


def _elbo(output: Any, y: torch.Tensor) -> torch.Tensor:
    made, mean, log = output
    apart = 0.5 * (mean**2 + log.exp() - 1 - log).sum(1)
    return (F.binary_cross_entropy(made, y, reduction="none").sum(1) + 0.3 * apart).mean()


def _pull(output: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Supervised contrastive loss, temperature .2."""
    near = output @ output.T / 0.2
    near = near - torch.eye(len(y)) * 1e4
    log = near - near.logsumexp(1, keepdim=True)
    same = (y[:, None] == y) & ~torch.eye(len(y), dtype=torch.bool)
    return -(log * same).sum(1).div(same.sum(1).clamp_min(1)).mean()


def _nearest(output: torch.Tensor, y: torch.Tensor) -> float:
    near = output @ output.T - 2 * torch.eye(len(y))
    return float((y[near.argmax(1)] == y).double().mean())


def _ctc(output: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    n, t = output.shape[:2]
    return F.ctc_loss(output.transpose(0, 1), y + 1, torch.full((n,), t), torch.full((n,), 3))


def _read(output: torch.Tensor, y: torch.Tensor) -> float:
    """Share of rows that are read without a mistake."""
    found = [[k for k, _ in itertools.groupby(row) if k] for row in output.argmax(-1).tolist()]
    return float(np.mean([a == b for a, b in zip(found, (y + 1).tolist(), strict=True)]))


def _policy(output: Any, y: torch.Tensor) -> torch.Tensor:
    """Actor and critic: a reward of one for the right digit."""
    logits, value = output
    chance = torch.distributions.Categorical(logits=logits)
    action = chance.sample()
    reward = (action == y).float()
    gained = (reward - value[:, 0]).detach()
    entropy = chance.entropy().mean()
    lost = -(chance.log_prob(action) * gained).mean()
    return lost + F.mse_loss(value[:, 0], reward) - 0.01 * entropy


def _mixture(output: Any, y: torch.Tensor) -> torch.Tensor:
    normal = torch.distributions.Normal(output["mean"], output["scale"])
    return -(output["share"] + normal.log_prob(y)).logsumexp(1).mean()


def _lora_base(net: nn.Module) -> None:
    """The base on the digits as they are; the adapters are for the mirrored ones."""
    x, y = (torch.from_numpy(v) for v in _digits())
    base = [net.a.weight, net.a.bias, net.b.weight, net.b.bias]
    for p in base:
        p.requires_grad_(True)
    optimiser, rows = torch.optim.Adam(base, lr=3e-3), np.random.default_rng(7)
    for _ in range(500):
        index = torch.from_numpy(rows.integers(0, len(y), BATCH))
        optimiser.zero_grad()
        F.cross_entropy(net(x[index]), y[index]).backward()
        optimiser.step()
    for p in base:
        p.requires_grad_(False)


def adversaries(seed: int = 0) -> tuple[Made, Made]:
    """Generator and discriminator after 4,000 steps; the score is how many generated images the
    nearest real one of which is near: within 1.5 times what lies between real neighbours."""
    torch.manual_seed(seed)
    real = torch.from_numpy(_itself()["x"]) * 2 - 1
    g, d = nets.Generator(), nets.Discriminator()
    rows = np.random.default_rng(seed)
    of_g = torch.optim.Adam(g.parameters(), lr=1e-3, betas=(0.5, 0.9))
    of_d = torch.optim.Adam(d.parameters(), lr=1e-3, betas=(0.5, 0.9))
    for _ in range(4000):
        x = real[torch.from_numpy(rows.integers(0, len(real), BATCH))]
        fake = g(torch.randn(BATCH, 8))
        of_d.zero_grad()
        (F.softplus(-d(x)).mean() + F.softplus(d(fake.detach())).mean()).backward()
        of_d.step()
        of_g.zero_grad()
        F.softplus(-d(fake)).mean().backward()
        of_g.step()
    g.eval(), d.eval()
    z = torch.randn(600, 8)
    with torch.no_grad():
        fake = g(z)
    between = torch.cdist(real, real) + torch.eye(len(real)) * 1e3
    usual = between.min(1).values.median()
    near = float((torch.cdist(fake, real).min(1).values < 1.5 * usual).double().mean())
    mixed = torch.cat([fake, real[:600]]).numpy()
    y = np.repeat([0.0, 1.0], 600).astype(np.float32)[:, None]
    order = rows.permutation(1200)
    return (
        Made(g, near, {"z": z.numpy()}),
        Made(d, near, {"x": mixed[order], "y": y[order]}),
    )


_CLASSES = {"loss": _cross, "score": _right}
_BITS = partial(_same_side, 0.5)

TASKS = (
    Task("seq2seq", "nn.Transformer, encoder and decoder; sequences backwards", _backwards,
         **_CLASSES, works=0.9, steps=500, rate=2e-3),
    Task("visiontransformer", "patches and a class token; digits", _images, **_CLASSES, works=0.9,
         steps=400),
    Task("selu", "batch norm, SELU, alpha dropout; breast cancer", _cancer,
         F.binary_cross_entropy_with_logits, partial(_same_side, 0.0), 0.93, 300),
    Task("kan", "splines, as in a KAN; digits", _flat, **_CLASSES, works=0.93),
    Task("siren", "sin activations; colours of a photograph by place", _picture, F.mse_loss, _skill,
         0.7, 1500, 1e-3),
    Task("flow", "RealNVP; two moons", _moons, lambda o, y: -_log_density(o, y).mean(),
         lambda o, y: float(_log_density(o, y).mean()), -1.2, 700, labels=False),
    Task("vae", "variational autoencoder; digits", _itself, _elbo, _skill, 0.5, 1500),
    Task("contrastive", "unit vectors, supervised contrastive loss; digits", _flat, _pull, _nearest,
         0.93),
    Task("experts", "mixture of experts; digits", _flat, **_CLASSES, works=0.93),
    Task("topone", "one expert a sample; digits", _flat, **_CLASSES, works=0.93),
    Task("fakequant", "8-bit fake quantisation; digits", _flat, **_CLASSES, works=0.93),
    Task("lora", "adapters on a frozen base; mirrored digits", _mirrored, **_CLASSES,
         works=0.85, prepare=_lora_base),
    Task("equilibrium", "one layer thirty times; digits", _flat, **_CLASSES, works=0.93),
    Task("squeeze", "squeeze and excitation; digits", _images, **_CLASSES, works=0.93),
    Task("mobile", "depthwise convolutions, ReLU6, hard swish; digits", _images, **_CLASSES,
         works=0.93, steps=300),
    Task("unet", "U-Net, a sigmoid a pixel; ink in noisy digits", _ink, F.binary_cross_entropy,
         _BITS, 0.85),
    Task("groupnorm", "group and instance norm, SiLU; digits", _images, **_CLASSES, works=0.93),
    Task("rmsnorm", "RMS norm, SwiGLU, residual; digits", _flat, **_CLASSES, works=0.93),
    Task("graph", "graph convolutions, dense adjacency; digits as graphs", _points, **_CLASSES,
         works=0.8, steps=1200, rate=5e-3),
    Task("spiking", "integrate and fire, surrogate slope; digits", _flat, **_CLASSES, works=0.93),
    Task("multilabel", "four sigmoids; properties of digits", _properties, F.binary_cross_entropy,
         _BITS, 0.93),
    Task("ctc", "convolution, BiLSTM, CTC; three digits in a row", _rows_of_three, _ctc, _read, 0.7,
         1200, 5e-3, labels=False),
    Task("actorcritic", "policy and value, trained by reward; digits", _flat, _policy, _right, 0.8,
         3000),
    Task("causal", "dilated causal convolutions with gates; digits, pixel by pixel", _sequence,
         **_CLASSES, works=0.7, steps=800, rate=5e-3),
    Task("highway", "twelve highway layers; digits", _flat, **_CLASSES, works=0.93),
    Task("deepset", "attention pooling, Mish; digits as sets of points", _points, **_CLASSES,
         works=0.8, steps=900),
    Task("mixture", "mixture density network; two branches", _arcs, _mixture,
         lambda o, y: -float(_mixture(o, y)), 0.3, 1200, labels=False),
    Task("maxout", "maxout, weight norm; digits", _flat, **_CLASSES, works=0.93),
    Task("text", "embeddings and a GRU of two layers; which token is more frequent", _tokens,
         **_CLASSES, works=0.9),
    Task("probabilities", "softplus, ends in a softmax; wine", partial(_table, "wine"),
         lambda o, y: F.nll_loss(o.clamp_min(1e-9).log(), y), _right, 0.93, 300),
    Task("hyper", "weights made by a net; digits", _flat, **_CLASSES, works=0.93),
    Task("binary", "weights of one bit; digits", _flat, **_CLASSES, works=0.9),
)  # fmt: skip
