"""What others say of four networks, and what it costs them, beside gradscope, in one process.

    python3 -m venv PEERS && PEERS/bin/pip install -e . torchdiag==0.1.0 traintools==0.6.2 \\
        torch-module-monitor==0.1.0 delve==0.1.50 weightwatcher==0.7.7 torchinstruments==0.10.2 \\
        cockpit-for-pytorch==1.0.2 "setuptools<81"
    PEERS/bin/python bench/peers.py [--pairs 15] [--only NAME] [--out FILE]

A: 12 tanh layers, A2: 12 logistic layers, both at torch's default start; B: 3 tanh layers, weights
and biases U[-10, 10]; control: 3 tanh layers from Xavier's start, trained. All see the same digits
and the same mean loss. Time: the median ratio of a step that is watched to a bare one (forward,
loss, backward), in neighbouring runs by processor time on one thread, with the middle half beside
it. A peer that does not install or does not run keeps its line, with the reason.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import logging
import os
import platform
import statistics
import sys
import time
import warnings
from datetime import date
from pathlib import Path

import numpy as np
import torch
from overhead import bare as drawn
from overhead import worked
from peer_tools import PART, PEERS, Net, Peer
from torch import nn

DIGITS = Path(__file__).parent.parent / "sample_models" / "digits.npz"
TWO_PLACES = 10.0
LEAST, PATIENCE = 3, 6.0
"""After so many pairs and seconds, no more are run."""

# The networks


def chain(layers: int, width: int, act: type[nn.Module]) -> nn.Sequential:
    """64 pixels -> 10 classes."""
    inner: list[nn.Module] = []
    for i in range(layers):
        inner += [nn.Linear(64 if i == 0 else width, width), act()]
    return nn.Sequential(*inner, nn.Linear(width, 10))


def digits(samples: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The first of the sample data."""
    with np.load(DIGITS) as data:
        return torch.from_numpy(data["x"])[:samples].float(), torch.from_numpy(data["y"])[:samples]


def nets(width: int = 64, samples: int = 256) -> dict[str, Net]:
    """A, A2, B and the control."""
    x, y = digits(samples)
    torch.manual_seed(0)
    large = chain(3, width, nn.Tanh)
    for p in large.parameters():
        nn.init.uniform_(p, -10, 10)
    models = {
        "A": chain(12, width, nn.Tanh),
        "A2": chain(12, width, nn.Sigmoid),
        "B": large,
        "control": healthy(width, x, y),
    }
    return {name: Net(model.eval(), x, y) for name, model in models.items()}


def healthy(width: int, x: torch.Tensor, y: torch.Tensor) -> nn.Module:
    """Xavier's start, 100 steps of Adam."""
    model = chain(3, width, nn.Tanh)
    for m in model.modules():
        if isinstance(m, nn.Linear):
            nn.init.xavier_normal_(m.weight)
            nn.init.zeros_(m.bias)
    adam = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(100):
        adam.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        adam.step()
    return model


def truth(net: Net) -> str:
    """First over last gradient norm of the loss, and the mean slope of the activations."""
    slopes: list[float] = []

    def look(module: nn.Module, _: object, out: torch.Tensor) -> None:
        slope = 1 - out**2 if isinstance(module, nn.Tanh) else out * (1 - out)
        slopes.append(slope.mean().item())

    hooks = [
        m.register_forward_hook(look)
        for m in net.model.modules()
        if isinstance(m, nn.Tanh | nn.Sigmoid)
    ]
    net.bare()
    for hook in hooks:
        hook.remove()
    norms = [m.weight.grad.norm().item() for m in net.model if isinstance(m, nn.Linear)]
    return f"{norms[0] / norms[-1]:.1e}; mean slope {statistics.mean(slopes):.2f}"


# Asking and timing


def version(package: str) -> str:
    """As installed, or a dash."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "-"


def asked(peer: Peer, net: Net) -> str:
    """What it says; a failure is an answer as well."""
    try:
        with peer.adapter(net) as step:
            return step()
    except ImportError as error:
        return f"not installed ({error})"
    except Exception as error:  # whatever somebody else's code raises, the others are still asked
        return f"fails: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"


def ratio(peer: Peer, net: Net, pairs: int) -> list[float]:
    """Watched over bare, sorted, each pair in the other order than the one before; none: fails."""
    rows: list[float] = []
    plain = net.bare if peer.backward == 1 else lambda: drawn(net.model, net.x)
    began = time.perf_counter()
    try:
        with peer.adapter(net) as step:
            step(), plain()
            while len(rows) < pairs:
                if len(rows) >= LEAST and time.perf_counter() - began > PATIENCE:
                    break
                if len(rows) % 2:
                    watched, bare = worked(step), worked(plain)
                else:
                    bare, watched = worked(plain), worked(step)
                rows.append(watched / bare)
    except Exception:  # as above; the words say why
        return []
    return sorted(rows)


def cost_of(peer: Peer, net: Net, pairs: int) -> str:
    """A cell."""
    rows = ratio(peer, net, pairs)
    if not rows:
        return "fails"
    middle, quarter = statistics.median(rows), len(rows) // 4
    places = 2 if middle < TWO_PLACES else 0
    few = f"; {len(rows)} pairs" if len(rows) < pairs else ""
    low, high = rows[quarter], rows[-1 - quarter]
    return f"{middle:.{places}f} ({low:.{places}f} to {high:.{places}f}{few})"


def line(cells: list[str]) -> str:
    """Of a table."""
    return "| " + " | ".join(c.replace("|", "/") for c in cells) + " |"


def main() -> None:
    """Print both tables, or write them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--only", default="", help="part of a peer's name")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    chosen = {n: p for n, p in PEERS.items() if options.only.lower() in n.lower()}
    small = nets()
    timed = {"64 wide, batch 256": small["A"], "512 wide, batch 256": nets(512)["A"]}
    said, cost = [], []
    for name, peer in chosen.items():
        torch.manual_seed(0)
        label = f"{name} {version(peer.package)}"
        if peer.cause != PART:
            said.append(line([label, *(asked(peer, n) for n in small.values()), peer.cause]))
        cells = [
            cost_of(peer, net, options.pairs) if i == 0 or peer.wide else "not run"
            for i, net in enumerate(timed.values())
        ]
        cost.append(line([label, peer.measures, *cells]))
        print(*said[-1:], cost[-1], sep="\n", file=sys.stderr, flush=True)
    bare = [statistics.median(worked(n.bare) for _ in range(9)) * 1e3 for n in timed.values()]
    load = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    lines = [
        "# Peers",
        "",
        f"`{' '.join(['python bench/peers.py', *sys.argv[1:]])}`, {date.today()}, "
        f"{platform.machine()}, one thread, Python {platform.python_version()}, "
        f"torch {torch.__version__}, {load}.",
        "",
        "## What each says",
        "",
        line(["", *small, "names a cause"]),
        line(["---"] * (len(small) + 2)),
        line(["truth: first over last gradient norm", *map(truth, small.values()), ""]),
        *said,
        "",
        "## What it costs",
        "",
        "Processor time of a watched step over a bare one (forward, loss, one backward pass) of A; "
        f"{options.pairs} pairs, or {LEAST} and more where they take long; median (middle half). "
        "Cockpit keeps the gradient of each sample: not run on the wide net. Bare: "
        + ", ".join(f"{ms:.1f} ms ({name})" for name, ms in zip(timed, bare, strict=True))
        + ".",
        "",
        line(["", "measures", *timed]),
        line(["---"] * (len(timed) + 2)),
        *cost,
    ]
    text = "\n".join(lines) + "\n"
    if options.out:
        options.out.write_text(text)
    else:
        print(text)


if __name__ == "__main__":
    main()
