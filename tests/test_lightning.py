"""The callback in a real trainer of Lightning's."""

from __future__ import annotations

import importlib
import sys
import warnings

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from gradscope.errors import OptionError
from tests.test_api import assert_same

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    lightning = pytest.importorskip("lightning.pytorch")
    from lightning.pytorch.loggers import CSVLogger

    from gradscope.lightning import GradscopeCallback

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's own: workers, devices, folders


class Module(lightning.LightningModule):
    """With dropout, and losses that are kept."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(6, 8), nn.Tanh(), nn.Dropout(0.3), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3)
        )
        self.losses = []

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, index):
        x, y = batch
        loss = nn.functional.cross_entropy(self(x), y)
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 0.01)


def data():
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(40, 6, generator=generator)
    return x, x[:, :3].argmax(1)


def trained(folder, callback, **options):
    """(what a training leaves behind, its trainer)."""
    lightning.seed_everything(0, verbose=False)
    module = Module()
    loader = DataLoader(TensorDataset(*data()), 8, shuffle=True)
    trainer = lightning.Trainer(
        max_epochs=2, accelerator="cpu", devices=1, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, log_every_n_steps=1,
        logger=CSVLogger(folder), callbacks=[callback] if callback else [], **options,
    )  # fmt: skip
    trainer.fit(module, loader)
    left = {
        "losses": module.losses,
        "weights": dict(module.state_dict()),
        "gradients": [p.grad for p in module.parameters()],
        "modes": [m.training for m in module.modules()],
        "optimizer": trainer.optimizers[0].state_dict(),
        "random": torch.get_rng_state(),
    }
    return left, trainer


OPTIONS = {
    "plain": {},
    "accumulated": {"accumulate_grad_batches": 2},
    "mixed": {"precision": "bf16-mixed"},
}


@pytest.mark.parametrize("case", OPTIONS)
def test_a_watched_training_is_the_same(case, tmp_path):
    options = OPTIONS[case]
    callback = GradscopeCallback(data(), every=2)
    expected, _ = trained(tmp_path / "a", None, **options)
    found, trainer = trained(tmp_path / "b", callback, **options)
    assert_same(expected, found)
    steps = trainer.global_step
    assert [m.step for m in callback.moments] == list(range(2, steps + 1, 2))
    assert callback.report.measurements.sample.labels


def test_what_is_measured_is_logged(tmp_path):
    callback = GradscopeCallback(data(), every=5, samples=16)
    _, trainer = trained(tmp_path, callback)
    assert {"gradscope/total", "gradscope/skill", "gradscope/errors"} <= set(trainer.logged_metrics)
    last = callback.moments[-1]
    assert float(trainer.logged_metrics["gradscope/total"]) == pytest.approx(last.total)


def test_without_lightning_the_way_to_get_it_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "lightning.pytorch", None)
    monkeypatch.delitem(sys.modules, "gradscope.lightning")
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'gradscope-cli\[lightning\]'"):
        importlib.import_module("gradscope.lightning")


def test_refused_before_training():
    with pytest.raises(OptionError, match="sample: an iterator can be read only once"):
        GradscopeCallback(iter([data()]))
