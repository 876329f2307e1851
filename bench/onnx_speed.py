"""Forward and backward of a lowered ONNX model against the torch model that it was exported from.

    python bench/onnx_speed.py [--pairs 15] [--only NAME] [--newer] [--peers PYTHON]
                              [--write [FILE]]

Both stand in one process with one thread and are run in turn; the ratio is the median over pairs of
processor time, so that other programs on the machine do not count. Recurrent layers are run with
their gates to be seen (no fused kernel), the torch model as fast as it can; "fused" is the lowered
model without that. PYTHON is that of an environment with onnx2torch and onnx2pytorch, each of which
is timed in a process of its own against the same torch model.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import torch
from torch import Tensor, nn

RESULTS = Path(__file__).parent / "results" / "onnx_speed.md"
PEERS = ("onnx2torch", "onnx2pytorch")


@dataclass(frozen=True)
class Case:
    """A model and its input; ``limit`` is the ratio to stay below, None where none is set."""

    model: Callable[[], nn.Module]
    x: Callable[[], Tensor]
    limit: float | None
    recurrent: bool = False


class Last(nn.Module):
    """A recurrent layer, read out at its last step."""

    def __init__(self, rnn: nn.RNNBase, classes: int = 10) -> None:
        super().__init__()
        self.rnn, self.head = rnn, nn.Linear(rnn.hidden_size, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores."""
        return self.head(self.rnn(x)[0][:, -1])


class Residual(nn.Module):
    """Two convolutions and a way around them."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(after), nn.BatchNorm2d(after)
        self.around = nn.Identity()
        if stride > 1 or before != after:
            self.around = nn.Sequential(
                nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after)
            )

    def forward(self, x: Tensor) -> Tensor:
        """relu(f(x) + g(x))."""
        h = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(h)) + self.around(x))


def _mlp() -> nn.Module:
    layers = [m for _ in range(8) for m in (nn.Linear(256, 256), nn.Tanh())]
    return nn.Sequential(*layers, nn.Linear(256, 10))


def _small() -> nn.Module:
    layers = [m for i in range(20) for m in (nn.Linear(8 if i else 64, 8), nn.Tanh())]
    return nn.Sequential(*layers, nn.Linear(8, 10))


def _cnn() -> nn.Module:
    layers: list[nn.Module] = []
    channels = 3
    for i, width in enumerate((16, 16, 32, 32, 64, 64)):
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if i % 2 else []
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def _resnet() -> nn.Module:
    stem = [nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    blocks = [Residual(16, 16, 1), Residual(16, 32, 2), Residual(32, 32, 1), Residual(32, 64, 2)]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def _transformer() -> nn.Module:
    layer = nn.TransformerEncoderLayer(128, 4, 512, 0.0, batch_first=True, activation="gelu")
    return nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)


CASES = {
    "MLP 8 x 256, batch 64": Case(_mlp, lambda: torch.randn(64, 256), 1.2),
    "MLP 20 x 8, batch 64": Case(_small, lambda: torch.randn(64, 64), None),
    "CNN 6 conv, batch norm, 32 x 32, batch 16": Case(
        _cnn, lambda: torch.randn(16, 3, 32, 32), 1.2
    ),
    "ResNet of 4 blocks, 32 x 32, batch 16": Case(
        _resnet, lambda: torch.randn(16, 3, 32, 32), None
    ),
    "TransformerEncoder 4 x 128, 64 tokens, batch 8": Case(
        _transformer, lambda: torch.randn(8, 64, 128), 1.5
    ),
    "LSTM 2 x 256, 48 steps, batch 64": Case(
        lambda: Last(nn.LSTM(256, 256, 2, batch_first=True)), lambda: torch.randn(64, 48, 256), 2.5,
        True,
    ),
    "LSTM 2 x 128, 32 steps, batch 32": Case(
        lambda: Last(nn.LSTM(128, 128, 2, batch_first=True)), lambda: torch.randn(32, 32, 128), 2.5,
        True,
    ),
    "GRU 2 x 128, 32 steps, batch 32": Case(
        lambda: Last(nn.GRU(128, 128, 2, batch_first=True)), lambda: torch.randn(32, 32, 128), 2.5,
        True,
    ),
}  # fmt: skip


def built(name: str) -> tuple[nn.Module, Tensor]:
    """Seeded, in eval mode."""
    torch.manual_seed(0)
    case = CASES[name]
    return case.model().eval(), case.x()


def export(module: nn.Module, x: Tensor, path: Path, *, newer: bool) -> None:
    """To a file, without a word."""
    said = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(said), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.backends.mha.set_fastpath_enabled(False)  # the older exporter does not know it
        free = {"dynamic_shapes": ({0: torch.export.Dim("n")},)} if newer else {
            "dynamic_axes": {"x": {0: "n"}}}  # fmt: skip
        torch.onnx.export(
            module, (x,), str(path), dynamo=newer, opset_version=20 if newer else 17,
            input_names=["x"], output_names=["y"], external_data=False, **free,
        )  # fmt: skip


def passes(module: nn.Module, x: Tensor) -> Callable[[], None]:
    """One forward, one backward to all parameters."""
    parameters = [p for p in module.parameters() if p.requires_grad]

    def run() -> None:
        y = module(x)
        y = next(iter(y.values())) if isinstance(y, dict) else y
        torch.autograd.grad(y.sum(), parameters, allow_unused=True)

    return run


def ratio(one: Callable[[], None], two: Callable[[], None], pairs: int) -> tuple[float, float]:
    """Median of two / one over neighbouring runs, and the median of one in milliseconds."""
    for _ in range(3):
        one(), two()
    rows = [(_timed(one), _timed(two)) for _ in range(pairs)]
    middle = statistics.median(a for a, _ in rows)
    return statistics.median(b / a for a, b in rows), middle * 1e3


def _timed(run: Callable[[], None]) -> float:
    """Processor seconds of a run, over as many as take 20 ms."""
    start, count = time.process_time(), 0
    while (took := time.process_time() - start) < 0.02 or not count:
        run()
        count += 1
        took = time.process_time() - start
    return took / count


def measured(name: str, path: Path, pairs: int) -> dict[str, float]:
    """The lowered model, with the gates to be seen, and without."""
    from gradscope.config import LoadSettings
    from gradscope.loading import load_model

    module, x = built(name)
    lowered = load_model(str(path), LoadSettings()).module
    assert lowered is not None
    torch.testing.assert_close(lowered(x)["y"], module(x), rtol=1e-4, atol=1e-5)
    native, ours = passes(module, x), passes(lowered, x)
    found = dict(zip(("ratio", "ms"), ratio(native, ours, pairs), strict=True))
    if CASES[name].recurrent:

        def gates() -> None:
            with torch.backends.mkldnn.flags(enabled=False):
                ours()

        found["fused"] = found["ratio"]
        found["ratio"], found["ms"] = ratio(native, gates, pairs)
        found["torch's own with gates"], _ = ratio(native, lambda: _without_fused(native), pairs)
        found |= saturation(module, lowered, x, pairs)
        found["--no-gradients / all"] = without_gradients(str(path), x, pairs)
    return found


def saturation(module: nn.Module, lowered: nn.Module, x: Tensor, pairs: int) -> dict[str, float]:
    """Forward passes that look at the gates, against one that does not."""
    from gradscope.probe.forward_only import FusedGates
    from gradscope.probe.layout import BatchLayout, Plan
    from gradscope.probe.state import visible_operations
    from gradscope.probe.tap import ActivationTap

    def seen(quick: bool) -> None:
        tap = ActivationTap(lambda *_: Plan(BatchLayout(0)), len(x))
        way = FusedGates(tap, {}) if quick else contextlib.nullcontext()
        with torch.no_grad(), visible_operations(), way, tap:
            lowered(x)
        tap.finish()

    def plain() -> None:
        with torch.no_grad():
            module(x)

    return {
        "saturation in steps": ratio(plain, lambda: seen(False), pairs)[0],
        "saturation quick": ratio(plain, lambda: seen(True), pairs)[0],
    }


def _without_fused(run: Callable[[], None]) -> None:
    with torch.backends.mkldnn.flags(enabled=False):
        run()


def without_gradients(path: str, x: Tensor, pairs: int) -> float:
    """All that the probe does with ``--no-gradients``, against what it does without."""
    from gradscope.config import LoadSettings, ProbeSettings
    from gradscope.loading import load_model
    from gradscope.model import Batch, Sample
    from gradscope.probe import measure
    from gradscope.progress import Silent

    model, n = load_model(path, LoadSettings()), len(x)
    batch = Batch((x,), {}, None, n, 0)
    sample = Sample("x", n, n, False, False, {"x": tuple(x.shape[1:])}, lambda: iter([batch]))

    def probed(gradients: bool) -> None:
        measure(model, sample, None, ProbeSettings(gradients=gradients), 0, n, Silent())

    return ratio(lambda: probed(True), lambda: probed(False), pairs)[0]


def peer(which: str, name: str, path: Path, pairs: int) -> float:
    """Ratio of another converter, in the process that has it."""
    import onnx

    # Both import torchvision, whose kernels do not load beside torch's build for processors alone,
    # and which then fails at the first name that they would have had. Neither is used here.
    names = torch.library.Library("torchvision", "DEF")  # for as long as it is held
    for operator in ("nms", "qnms"):
        names.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    proto = onnx.load(path)
    if which == "onnx2torch":
        import onnx2torch

        other = onnx2torch.convert(proto)
    else:
        import onnx2pytorch

        other = onnx2pytorch.ConvertModel(proto, experimental=True)
    module, x = built(name)
    other.eval()
    torch.testing.assert_close(other(x), module(x), rtol=1e-3, atol=1e-4)
    for p in other.parameters():
        p.requires_grad_(p.is_floating_point())
    return ratio(passes(module, x), passes(other, x), pairs)[0]


def asked(python: str, which: str, name: str, path: Path, pairs: int) -> str:
    """The same from here, in words."""
    command = [python, __file__, "--peer", which, "--only", name, "--file", str(path),
               "--pairs", str(pairs)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return f"{json.loads(done.stdout.splitlines()[-1]):.2f}"
    last = (done.stderr.strip().splitlines() or ["?"])[-1]
    return f"fails: {last}".replace("|", "/")[:70]


def _versions(python: str) -> str:
    code = f"from importlib.metadata import version; print(*map(version, {PEERS}))"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    return ", ".join(f"{p} {v}" for p, v in zip(PEERS, done.stdout.split(), strict=True))


def main() -> int:
    """Print one line a model; status 1 where a limit is passed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--only", default="")
    parser.add_argument("--newer", action="store_true", help="torch's newer exporter, opset 20")
    parser.add_argument("--peers", help="python with onnx2torch and onnx2pytorch")
    parser.add_argument(
        "--write", type=Path, nargs="?", const=RESULTS, help="to bench/results, or this file"
    )
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if options.peer:
        print(peer(options.peer, options.only, options.file, options.pairs))
        return 0
    heads = ["model", "ratio", "limit", "torch, ms", "remarks", *(PEERS if options.peers else ())]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    missed = 0
    for name, case in CASES.items():
        if options.only not in name:
            continue
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            export(*built(name), path, newer=options.newer)
            found = measured(name, path, options.pairs)
            missed += case.limit is not None and found["ratio"] > case.limit
            extra = [f"{k} {v:.2f}" for k, v in found.items() if k not in ("ratio", "ms")]
            cells = [name, f"{found['ratio']:.2f}", str(case.limit or ""), f"{found['ms']:.1f}",
                     ", ".join(extra)]  # fmt: skip
            if options.peers:
                cells += [asked(options.peers, p, name, path, options.pairs) for p in PEERS]
            lines.append(f"| {' | '.join(cells)} |")
            print(lines[-1], file=sys.stderr, flush=True)
    newer = " --newer" if options.newer else ""
    others = f" Others: {_versions(options.peers)}." if options.peers else ""
    title = (
        f"`python bench/onnx_speed.py{newer}`, {date.today()}, {platform.machine()}, one thread, "
        f"torch {torch.__version__}, medians of {options.pairs} ratios of processor time, busy "
        f"machine.{others}"
    )
    text = "\n".join(["# A lowered ONNX model against the torch model it was exported from", "",
                      title, "", *lines]) + "\n"  # fmt: skip
    print(text)
    if options.write:
        options.write.write_text(text, encoding="utf-8")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
