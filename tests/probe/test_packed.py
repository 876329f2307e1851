"""Batches of packed sequences are cut by sequences, never by what stands in the pack."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence, pad_packed_sequence

from gradscope.config import ProbeSettings
from gradscope.cutting import cut
from gradscope.model import Batch, LoadedModel, Sample
from gradscope.probe import measure
from gradscope.progress import Silent

LENGTHS = [2, 8, 3, 1, 4, 4, 5, 2]  # as many steps as sequences: an axis of 8 that is none


class Last(nn.Module):
    """Reads a packed batch."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.out = nn.LSTM(4, 3, batch_first=True), nn.Linear(3, 3)

    def forward(self, packed: PackedSequence) -> torch.Tensor:
        assert len(packed.data) == int(packed.batch_sizes.sum())
        return self.out(self.rnn(packed)[1][0][-1])


def packed() -> PackedSequence:
    generator = torch.Generator().manual_seed(0)
    parts = [torch.randn(n, 4, generator=generator) for n in LENGTHS]
    return pack_sequence(parts, enforce_sorted=False)


def test_the_first_sequences_of_a_pack():
    some = cut(packed(), 8, 0, 3)
    padded, lengths = pad_packed_sequence(some, batch_first=True)
    whole, _ = pad_packed_sequence(packed(), batch_first=True)
    assert lengths.tolist() == LENGTHS[:3]
    assert torch.equal(padded, whole[:3, :8])


def test_a_packed_batch_is_measured():
    torch.manual_seed(0)
    module = Last()
    labels = torch.arange(8) % 3

    def batches():
        yield Batch((packed(),), {}, labels, 8, 0)

    sample = Sample("x", 8, 8, False, True, {"x": (4,)}, batches)
    model = LoadedModel("m", "f", module)
    found = measure(model, sample, None, ProbeSettings(), 0, 8, Silent())
    assert {p.name for p in found.parameters} == {n for n, _ in module.named_parameters()}
    gradient = {p.name: p.loss_gradient.rms for p in found.parameters}
    module.double()
    double = PackedSequence(packed().data.double(), *packed()[1:])
    nn.functional.cross_entropy(module(double), labels).backward()
    for name, parameter in module.named_parameters():
        exact = float(parameter.grad.square().mean().sqrt())
        assert abs(gradient[name] - exact) <= 1e-5 * exact, name
