"""The tools of ``bench/peers.py``, each set up on a network as its own documentation does it."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
from overhead import DRAWS, Probe
from torch import nn

import gradscope

PART = "-"
"""No tool by itself: timed, and not asked."""

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
