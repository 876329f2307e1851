"""What has no gradient: quantised arithmetic, chance, text; and reading quantised weights."""

from __future__ import annotations

from typing import Any

import torch

from gradscope.loading.onnx.registry import Call, Refusal, operator, refuse

Tensor = torch.Tensor

_QUANTISED = "quantised arithmetic on integers has no gradient; export the model in float"
refuse(
    _QUANTISED,
    "QuantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger",
    "MatMulInteger",
)  # fmt: skip
refuse(
    _QUANTISED,
    "QLinearAdd", "QLinearMul", "QLinearSigmoid", "QLinearLeakyRelu", "QLinearAveragePool",
    "QLinearGlobalAveragePool", "QLinearConcat", "QLinearSoftmax", "QLinearWhere", "QGemm",
    "QAttention", "QEmbedLayerNormalization", "QMoE", "MatMulNBits", "MatMulBnb4",
    "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM", "QuantizeLinear",
    "DequantizeLinear", "GatherBlockQuantized",
    domain="com.microsoft",
)  # fmt: skip
refuse(
    "it draws random numbers: its output cannot be compared with the runtime's",
    "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli",
    "Multinomial",
)  # fmt: skip
refuse(
    "text has no gradient",
    "StringNormalizer", "StringConcat", "StringSplit", "RegexFullMatch", "TfIdfVectorizer",
    "LabelEncoder",
)  # fmt: skip
refuse("the list of boxes that it keeps has no gradient", "NonMaxSuppression")
refuse("it decodes a file of an image", "ImageDecoder")


@operator("DequantizeLinear", since=10)
def dequantise(call: Call, x: Tensor, scale: Tensor, zero: Any = None) -> Tensor:
    """(x - zero) scale, with one scale in all, one for each slice of an axis or for each block."""
    block, axis = int(call.get("block_size", 0)), int(call.get("axis", 1))
    wide = x.to(torch.float64 if scale.dtype is torch.float64 else torch.float32)

    def fit(value: Tensor) -> Tensor:
        if value.dim() == 0 or value.numel() == 1:
            return value.reshape(())
        if block:
            spread = value.repeat_interleave(block, axis)
            return spread.narrow(axis, 0, x.shape[axis])
        return value.reshape([-1 if i == axis % x.dim() else 1 for i in range(x.dim())])

    centred = wide if zero is None else wide - fit(zero).to(wide.dtype)
    return (centred * fit(scale).to(wide.dtype)).to(scale.dtype)


@operator("Dropout", since=6)
def dropout(call: Call, x: Tensor, ratio: Any = None, training: Any = None) -> Any:
    """x: an exported graph drops nothing out.

    Raises:
        Refusal: the file says that it does.
    """
    drops = training is not None and bool(training.reshape(-1)[0])
    if drops and (ratio is None or float(ratio.reshape(-1)[0]) > 0):
        raise Refusal("it drops at random: its output cannot be compared with the runtime's")
    return x, torch.ones_like(x, dtype=torch.bool)
