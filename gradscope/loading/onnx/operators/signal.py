"""Fourier transforms, windows and mel bands."""

from __future__ import annotations

import math

import torch

from gradscope.loading.onnx.budget import check_count, check_shape
from gradscope.loading.onnx.operators.shape import bounded
from gradscope.loading.onnx.registry import Call, number, operator

Tensor = torch.Tensor


@operator("DFT", since=17)
def dft(call: Call, x: Tensor, length: Tensor | None = None, axis: Tensor | None = None) -> Tensor:
    """Discrete Fourier transform of real [..., 1] or complex [..., 2] numbers."""
    default = 1 if call.version < 20 else -2
    along = int(number(axis)) if axis is not None else int(call.get("axis", default))
    along %= x.dim()
    inverse, onesided = bool(call.get("inverse", 0)), bool(call.get("onesided", 0))
    size = int(number(length)) if length is not None else None
    if size is None:
        size = 2 * (x.shape[along] - 1) if inverse and onesided else x.shape[along]
    bounded([size])
    z = _complex(x)
    if inverse and onesided:
        real: Tensor = torch.fft.irfft(z, size, along)
        return real.unsqueeze(-1)
    if inverse:
        return torch.view_as_real(torch.fft.ifft(z, size, along))
    if onesided:
        spectrum = torch.fft.rfft(z, size, along) if not z.is_complex() else torch.fft.fft(
            z, size, along
        ).narrow(along, 0, size // 2 + 1)  # fmt: skip
        return torch.view_as_real(spectrum.contiguous())
    return torch.view_as_real(torch.fft.fft(z, size, along))


def _complex(x: Tensor) -> Tensor:
    return x.squeeze(-1) if x.shape[-1] == 1 else torch.view_as_complex(x.contiguous())


@operator("STFT", since=17)
def stft(
    call: Call, x: Tensor, step: Tensor, window: Tensor | None = None, length: Tensor | None = None
) -> Tensor:
    """Fourier transforms of windows of a signal [batch, samples, 1 or 2]."""
    z = _complex(x if x.dim() == 3 else x.unsqueeze(-1))
    if length is not None:
        size = int(number(length))
    else:
        size = z.shape[1] if window is None else window.shape[0]
    frames = z.unfold(1, size, int(number(step)))
    check_shape(frames.shape, (x.new_empty(0),))
    frames = frames if window is None else frames * window
    if call.get("onesided", 1) and not z.is_complex():
        return torch.view_as_real(torch.fft.rfft(frames, dim=-1))
    return torch.view_as_real(torch.fft.fft(frames, dim=-1))


_WINDOWS = {
    "HannWindow": (0.5, 0.5, 0.0),
    "HammingWindow": (25 / 46, 21 / 46, 0.0),
    "BlackmanWindow": (0.42, 0.5, 0.08),
}


@operator(*_WINDOWS, since=17)
def window(call: Call, size: Tensor) -> Tensor:
    """A sum of cosines."""
    count = int(number(size))
    bounded([count])
    period = count if call.get("periodic", 1) else count - 1
    phase = torch.arange(count, dtype=torch.float64) * (2 * math.pi / max(period, 1))
    a, b, c = _WINDOWS[call.node.op]
    values = a - b * torch.cos(phase) + c * torch.cos(2 * phase)
    return values.to(call.types.of(call.get("output_datatype", 1)))


@operator("MelWeightMatrix", since=17)
def mel_weights(
    call: Call, bins: Tensor, length: Tensor, rate: Tensor, lowest: Tensor, highest: Tensor
) -> Tensor:
    """Triangles on the mel scale, from frequencies [length // 2 + 1] to bands."""
    count, size = int(number(bins)), int(number(length))
    rows = size // 2 + 1
    bounded([rows, count])
    check_count(count, "bands")
    mel = [2595 * math.log10(1 + float(number(f)) / 700) for f in (lowest, highest)]
    edges = torch.arange(count + 2, dtype=torch.float64) * ((mel[1] - mel[0]) / (count + 2))
    hertz = 700 * (10 ** ((edges + mel[0]) / 2595) - 1)
    at = torch.floor((size + 1) * hertz / number(rate)).long()
    values = torch.zeros(rows, count, dtype=torch.float64)
    for i in range(count):
        low, centre, high = at[i : i + 3].tolist()
        if low == centre:
            values[centre, i] = 1
        for j in range(low, centre + 1) if low != centre else ():
            values[j, i] = (j - low) / (centre - low)
        for j in range(centre, high) if high > centre else ():
            values[j, i] = (high - j) / (high - centre)
    return values.to(call.types.of(call.get("output_datatype", 1)))
