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
import contextlib
import copy
import importlib.metadata
import io
import logging
import os
import platform
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import torch
from overhead import DRAWS, Probe, worked
from overhead import bare as drawn
from torch import nn

import gradscope

DIGITS = Path(__file__).parent.parent / "sample_models" / "digits.npz"
TWO_PLACES = 10.0
PART = "-"
"""No tool by itself: timed, and not asked."""
LEAST, PATIENCE = 3, 6.0
"""After so many pairs and seconds, no more are run."""

Step = Callable[[], str]
"""Runs what is timed; returns what was said."""


@dataclass(frozen=True)
class Net:
    """A network with its data."""

    model: nn.Module
    x: torch.Tensor
    y: torch.Tensor

    def bare(self) -> torch.Tensor:
        """Forward, mean loss, backward; the loss."""
        self.model.zero_grad(set_to_none=True)
        loss = nn.functional.cross_entropy(self.model(self.x), self.y)
        loss.backward()
        return loss

    def copy(self) -> Net:
        """Another model of the same weights, for tools that leave something behind."""
        return Net(copy.deepcopy(self.model), self.x, self.y)


Adapter = Callable[[Net], AbstractContextManager[Step]]


@dataclass(frozen=True)
class Peer:
    """A tool as it is asked.

    Attributes:
        package: the distribution, for its version.
        cause: whether it names a cause; PART: it is timed only.
        measures: what its step measures.
        adapter: sets it up on a network.
        backward: backward passes of the bare step that it is timed against.
        wide: whether the wider network fits; gradients of each sample take gigabytes there.
    """

    package: str
    cause: str
    measures: str
    adapter: Adapter
    backward: int = 1
    wide: bool = True


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


# The peers, each as its documentation runs it


def span(values: list[float]) -> str:
    """The least and the largest."""
    return f"{min(values):.1e} to {max(values):.1e}" if values else "nothing"


@contextlib.contextmanager
def torchdiag(net: Net) -> Iterator[Step]:
    """``check_gradients`` and ``check_dead_neurons``, which prints and runs a pass of its own."""
    import torchdiag as tool

    def step() -> str:
        net.bare()
        with contextlib.redirect_stdout(io.StringIO()):
            found = tool.check_gradients(net.model)
            dead = tool.check_dead_neurons(net.model, net.x)
        said = sorted({s["status"] for s in found.values()})
        bad = sum(s["status"] != "OK" for s in found.values())
        dying = sum(d["dead_pct"] > 50 for d in dead.values())
        return f"{', '.join(said)} ({bad} of {len(found)} not OK, {dying} dead)"

    yield step


@contextlib.contextmanager
def traintools_gradients(net: Net) -> Iterator[Step]:
    """``GradientHealthMonitor``."""
    from traintools import GradientHealthMonitor

    monitor = GradientHealthMonitor()

    def step() -> str:
        net.bare()
        found = monitor.inspect(net.model)
        return "OK" if found.ok else f"WARN: {found.warnings[0]} ({len(found.warnings)})"

    yield step


@contextlib.contextmanager
def traintools_all(net: Net) -> Iterator[Step]:
    """That and ``PlasticityProbe``."""
    from traintools import GradientHealthMonitor, PlasticityProbe

    monitor, probe = GradientHealthMonitor(), PlasticityProbe(net.model)

    def step() -> str:
        net.bare()
        found, plastic = monitor.inspect(net.model), probe.measure()
        probe.reset_buffers()
        gradients = "OK" if found.ok else f"WARN ({len(found.warnings)})"
        critical = len(plastic.critical_layers)
        return f"{gradients}; plasticity {plastic.global_score:.2f}, {critical} critical"

    yield step
    probe.remove_hooks()


@contextlib.contextmanager
def module_monitor(net: Net) -> Iterator[Step]:
    """Norms of activations, parameters and gradients; it has no default metrics."""
    from torch_module_monitor import ModuleMonitor

    monitor = ModuleMonitor(monitor_step_fn=lambda _: True)
    monitor.add_activation_metric("norm", lambda t: t.norm())
    monitor.add_parameter_metric("norm", lambda t: t.norm())
    monitor.add_gradient_metric("norm", lambda t: t.norm())
    monitor.set_module(net.model)
    count = iter(range(1 << 30))

    def step() -> str:
        monitor.begin_step(next(count))
        net.bare()
        monitor.monitor_parameters()
        monitor.monitor_gradients()
        monitor.end_step()
        logged = monitor.get_step_metrics()
        gradients = [float(v) for k, v in logged.items() if k.startswith("gradient/")]
        return f"{len(logged)} numbers; gradient norms {span(gradients)}"

    yield step
    monitor.activation_hooks.remove_all_hooks()


@contextlib.contextmanager
def delve(net: Net) -> Iterator[Step]:
    """``SaturationTracker``: the share of directions that hold 99 % of a layer's variance."""
    from delve import SaturationTracker

    with tempfile.TemporaryDirectory() as folder:
        own = net.copy()
        tracker = SaturationTracker(folder, "csv", own.model, device="cpu", stats=["lsat"])

        def step() -> str:
            own.bare()
            tracker.add_saturations(save=False)
            rows = tracker.writer.value_dict
            values = [float(v[-1]) for k, v in rows.items() if "layer" in k or "saturation" in k]
            return f"saturation {span(values)}"

        yield step
        with contextlib.suppress(Exception):
            tracker.close()


@contextlib.contextmanager
def weightwatcher(net: Net) -> Iterator[Step]:
    """``analyze``: weights alone, so nothing is run forward or backward."""
    import weightwatcher as tool

    logging.getLogger("weightwatcher").setLevel(logging.ERROR)

    def step() -> str:
        with contextlib.redirect_stdout(io.StringIO()):
            details = tool.WeightWatcher(model=net.model).analyze()
        if not len(details):
            return "nothing"
        said = sorted({str(w) for w in details["warning"] if w}) if "warning" in details else []
        return f"alpha {span(list(details['alpha']))}; {', '.join(said) or 'no warning'}"

    yield step


def cockpit(label: str) -> Adapter:
    """One of its configurations; it needs an optimiser, whose steps are kept small."""

    @contextlib.contextmanager
    def adapter(net: Net) -> Iterator[Step]:
        from backpack import extend
        from cockpit import Cockpit
        from cockpit.utils.configuration import configuration

        model = extend(copy.deepcopy(net.model))
        mean, each = extend(nn.CrossEntropyLoss()), nn.CrossEntropyLoss(reduction="none")
        sgd = torch.optim.SGD(model.parameters(), 1e-6)
        tool = Cockpit(model.parameters(), quantities=configuration(label))
        count = iter(range(1 << 30))

        def step() -> str:
            k = next(count)
            sgd.zero_grad()
            out = model(net.x)
            loss, losses = mean(out, net.y), each(out, net.y)
            info = {"batch_size": len(net.x), "individual_losses": losses,
                    "loss": loss, "optimizer": sgd}  # fmt: skip
            with tool(k, info=info):
                loss.backward(create_graph=tool.create_graph(k))
            sgd.step()
            norms = tool.get_output()[k]["GradNorm"]
            return f"gradient norms {span([float(n) for n in norms])}"

        yield step

    return adapter


@contextlib.contextmanager
def torchinstruments(net: Net) -> Iterator[Step]:
    """Every step sampled, with its default statistics and histograms, into files."""
    from torchinstruments import inject_observer, remove_observer

    own = net.copy()
    with tempfile.TemporaryDirectory() as folder:
        inject_observer(own.model, interval=timedelta(microseconds=1), output_dir=folder)

        def step() -> str:
            own.bare()
            files = [f for f in Path(folder).rglob("*") if f.is_file()]
            return f"files ({len(files)})"

        yield step
        remove_observer(own.model)


def probe(draws: int, *, whole: bool = True) -> Adapter:
    """The passes with all default statistics of a batch; whole: and what is made of them once a
    report, as ``bench/overhead.py`` times it."""

    @contextlib.contextmanager
    def adapter(net: Net) -> Iterator[Step]:
        run = Probe(net.model, net.x, draws)

        def step() -> str:
            if whole:
                run()
            else:
                run.sweep()
                net.model.zero_grad(set_to_none=True)
            return "numbers"

        yield step

    return adapter


@contextlib.contextmanager
def whole(net: Net) -> Iterator[Step]:
    """``gradscope.inspect`` with labels, four draws, rules and diagnosis: once a report."""

    def step() -> str:
        report = gradscope.inspect(net.model, (net.x, net.y))
        causes = ", ".join(report.causes)
        return f"{report.verdict.value}" + (f": {causes}" if causes else "")

    yield step


PEERS = {
    "torchdiag": Peer("torchdiag", "no", "gradients, dead units", torchdiag),
    "traintools, gradients": Peer("traintools", "no", "gradients", traintools_gradients),
    "traintools, with plasticity": Peer(
        "traintools", "no", "gradients, activations", traintools_all
    ),
    "torch-module-monitor": Peer(
        "torch-module-monitor", "no", "norms of activations, parameters, gradients", module_monitor
    ),
    "delve": Peer("delve", "no", "covariance of activations", delve),
    "WeightWatcher": Peer("weightwatcher", "no", "spectra of weights", weightwatcher),
    "Cockpit, economy": Peer(
        "cockpit-for-pytorch", "no", "gradients of each sample", cockpit("economy"), wide=False
    ),
    "Cockpit, full": Peer(
        "cockpit-for-pytorch", "no", "those and curvature", cockpit("full"), wide=False
    ),
    "torchinstruments": Peer(
        "torchinstruments", "no", "outputs and their gradients", torchinstruments
    ),
    "gradscope, a batch, 1 draw": Peer(
        "gradscope-cli",
        PART,
        "distributions of activations and their gradients, by unit and layer",
        probe(1, whole=False),
    ),
    "gradscope, probe, 1 draw": Peer(
        "gradscope-cli", PART, "that, ledger, gradients of parameters: once a report", probe(1)
    ),
    "gradscope, probe, 4 draws": Peer("gradscope-cli", PART, "that, of four gradients", probe(4)),
    "gradscope, probe, 4 draws, over 4 bare backward passes": Peer(
        "gradscope-cli", PART, "the same", probe(4), DRAWS
    ),
    "gradscope, inspect": Peer(
        "gradscope-cli", "yes", "that, weights, loss, rules, diagnosis", whole
    ),
}


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
