"""The zoo judged by its peers: torchdiag and traintools as installed, and the published thresholds
of SageMaker Debugger, AUTOTRAINER and DeepDiagnosis, from their documented definitions.

    python3 -m venv PEERS && PEERS/bin/pip install torch==2.13.0 torchdiag==0.1.0 traintools==0.6.2
    PEERS/bin/python bench/calibration_peers.py --part PART [--dir DIR] [--out FILE]

All of them watch training, so each gets what a training step would show it: the gradients of the
mean loss over the sample, weights, and activations of modules. What needs a history of losses or
the learning rate (AUTOTRAINER's slow convergence and oscillation, SageMaker's update ratio) is left
out. Any warning counts as "unhealthy": none of them knows a second verdict.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import torch
from torch import nn

from bench.zoo import nets
from bench.zoo.parts import PARTS
from bench.zoo.rates import share, table
from bench.zoo.records import records

TITLES = {
    "dev": "development families",
    "held": "families of the second part",
    "fresh": "families of the third part",
    "fourth": "families of the fourth part",
}
SIGNALS = ("cnn1d", "unet1d")
"""Kinds with activations of ``[N, channels, length]``."""
BOUNDED = (nn.Tanh, nn.Sigmoid, nn.Softsign, nn.Hardtanh, nets.Arctan)


@dataclass
class Watched:
    """A model after one backward pass of the mean loss, with the inputs of its activations."""

    net: nn.Module
    x: torch.Tensor
    signals: bool = False
    """Whether units are channels in three dimensions, too: ``[N, channels, length]``."""
    before: list[tuple[nn.Module, torch.Tensor]] = field(default_factory=list)

    @property
    def gradients(self) -> dict[str, torch.Tensor]:
        return {n: p.grad for n, p in self.net.named_parameters() if p.grad is not None}

    @property
    def finite(self) -> bool:
        tensors = [*self.net.parameters(), *self.gradients.values(), *(z for _, z in self.before)]
        return all(bool(torch.isfinite(t).all()) for t in tensors)


def watch(record: dict[str, Any]) -> Watched:
    """Forward, mean loss, backward, in eval mode."""
    stem = Path(record["path"])
    if record["whole"]:
        net = torch.load(f"{stem}.pt", weights_only=False)
    else:
        net = nets.build(**record["config"])
        net.load_state_dict(torch.load(f"{stem}.pt", weights_only=True))
    with np.load(stem.parent / f"{record['data']}.npz") as data:
        x, y = torch.from_numpy(data["x"]), torch.from_numpy(data["y"])
    watched = Watched(net.eval(), x, record["kind"] in SIGNALS)
    hooks = [
        m.register_forward_hook(lambda m, args, out: watched.before.append((m, args[0].detach())))
        for m in net.modules()
        if isinstance(m, (*BOUNDED, nn.ReLU, nn.GELU))
    ]
    out = net(x)
    for hook in hooks:
        hook.remove()
    loss = nn.functional.cross_entropy(out, y) if y.dim() == 1 else nn.functional.mse_loss(out, y)
    loss.backward()
    return watched


def units(z: torch.Tensor, signals: bool) -> torch.Tensor:
    """``[samples and places, units]``: channels second in images and signals, last in sequences."""
    if z.dim() == 4 or (z.dim() == 3 and signals):
        z = z.movedim(1, -1)
    return z.flatten(0, -2)


def sagemaker(w: Watched) -> bool:
    """ExplodingTensor; VanishingGradient, mean |g| < 1e-7; SaturatedActivation, tanh inputs beyond
    +-9.4999 and sigmoid inputs outside (-23, 16.99999) in all but 1 % of the samples for half of
    the units; DeadRelu, active in under 1 % for half of the units."""
    if not w.finite or any(g.abs().mean() < 1e-7 for g in w.gradients.values()):
        return True
    for module, z in w.before:
        if isinstance(module, nn.Tanh):
            alive = units(z.abs() < 9.4999, w.signals)
        elif isinstance(module, nn.Sigmoid):
            alive = units((z > -23) & (z < 16.99999), w.signals)
        elif isinstance(module, nn.ReLU):
            alive = units(z > 0, w.signals)
        else:
            continue
        if ((alive.float().mean(0) < 0.01).float().mean()) > 0.5:
            return True
    return False


def autotrainer(w: Watched) -> bool:
    """Vanishing, |g| of the first over the last layer < 1e-3 and the first < 1e-4; exploding, > 70
    or not finite; dying ReLU, 70 % of a layer's gradient exactly zero."""
    if not w.finite:
        return True
    sizes = [g.abs().mean().item() for g in w.gradients.values() if g.dim() > 1]
    first, last = sizes[0], sizes[-1]
    if first < 1e-4 and first < 1e-3 * last:
        return True
    if first > 70 * last:
        return True
    relu = any(isinstance(m, nn.ReLU) for m in w.net.modules())
    zeros = [(g == 0).float().mean().item() for g in w.gradients.values() if g.dim() > 1]
    return relu and max(zeros) > 0.7


def deepdiagnosis(w: Watched) -> bool:
    """|z| >= 5 in more than half of a bounded activation; variance of a weight < 1e-5 or > 10;
    mean |g| < 1e-7; not finite."""
    if not w.finite or any(g.abs().mean() < 1e-7 for g in w.gradients.values()):
        return True
    spread = [p.var().item() for p in w.net.parameters() if p.dim() > 1]
    if min(spread) < 1e-5 or max(spread) > 10:
        return True
    return any((z.abs() >= 5).float().mean() > 0.5 for m, z in w.before if isinstance(m, BOUNDED))


def torchdiag(w: Watched) -> bool:
    """``check_gradients`` not OK somewhere, or ``check_dead_neurons`` critical."""
    import torchdiag as tool

    with contextlib.redirect_stdout(io.StringIO()):
        gradients = tool.check_gradients(w.net)
        dead = tool.check_dead_neurons(w.net, w.x)
    bad = any(s["status"] not in ("OK", "no_grad") for s in gradients.values())
    return bad or any(d["dead_pct"] > 50 for d in dead.values())


def traintools_gradients(w: Watched) -> bool:
    """``GradientHealthMonitor`` with its defaults."""
    from traintools import GradientHealthMonitor

    return not GradientHealthMonitor().inspect(w.net).ok


def traintools_all(w: Watched) -> bool:
    """That, or a critical layer of ``PlasticityProbe``."""
    from traintools import PlasticityProbe

    if traintools_gradients(w):
        return True
    probe = PlasticityProbe(w.net)
    with torch.no_grad():
        w.net(w.x)
    found = probe.measure()
    probe.remove_hooks()
    return bool(found.critical_layers)


PEERS: dict[str, Callable[[Watched], bool]] = {
    "torchdiag 0.1.0": torchdiag,
    "traintools 0.6.2, gradients": traintools_gradients,
    "traintools 0.6.2, with plasticity": traintools_all,
    "SageMaker Debugger's thresholds": sagemaker,
    "AUTOTRAINER's thresholds": autotrainer,
    "DeepDiagnosis' thresholds": deepdiagnosis,
}


def judge(record: dict[str, Any]) -> dict[str, bool | None]:
    """What each says; None where it failed on non-finite numbers or the like."""
    said: dict[str, bool | None] = {}
    watched = watch(record)
    for name, peer in PEERS.items():
        try:
            said[name] = bool(peer(watched))
        except (RuntimeError, ValueError, ArithmeticError):
            said[name] = None
    return said


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", choices=tuple(PARTS), required=True)
    parser.add_argument("--dir", type=Path, default=Path(tempfile.gettempdir()) / "zoo")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    chosen = [r for r in records(options.dir / options.part) if r["truth"] in ("faulty", "healthy")]
    said = [(r, judge(r)) for r in chosen]
    rows = []
    for name in PEERS:
        cells = []
        for truth, planted in (("faulty", None), ("healthy", False), ("healthy", True)):
            them = [
                s[name] is True
                for r, s in said
                if r["truth"] == truth and (planted is None or r["planted"] is planted)
            ]
            cells.append(share(sum(them), len(them)))
        failed = sum(s[name] is None for _, s in said)
        rows.append((name, *cells, failed or "-"))
    head = ("", "faulty: warned", "healthy, nothing planted: warned",
            "healthy, planted but harmless: warned", "failed to run")  # fmt: skip
    said_as = ["DIR" if a == str(options.dir) else a for a in sys.argv[1:]]
    command = " ".join(["python bench/calibration_peers.py", *said_as])
    lines = [f"# Peers on the {TITLES[options.part]}", "",
             f"`{command}`, {date.today()}, torch {torch.__version__}: {len(chosen)} models.", "",
             *table(head, rows)]  # fmt: skip
    text = "\n".join(lines).rstrip() + "\n"
    if options.out:
        options.out.write_text(text)
    else:
        print(text)


if __name__ == "__main__":
    main()
