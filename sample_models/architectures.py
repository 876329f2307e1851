"""Architectures of the sample models that are saved as a state_dict; for ``--arch``."""

from __future__ import annotations

import torch
from torch import nn


class LSTMClassifier(nn.Module):
    """Reads the eight rows of a digit one after the other."""

    def __init__(self, hidden: int = 32, classes: int = 10) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, hidden, batch_first=True)
        self.head = nn.Linear(hidden, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, 64) pixels -> (n, classes) scores."""
        states, _ = self.lstm(x.reshape(-1, 8, 8))
        return self.head(states[:, -1])


class ResidualMLP(nn.Module):
    """Blocks h + W2 tanh(W1 h)."""

    def __init__(self, width: int = 32, blocks: int = 6, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Linear(64, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, width))
            for _ in range(blocks)
        )
        self.head = nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, 64) pixels -> (n, classes) scores."""
        h = self.stem(x)
        for block in self.blocks:
            h = h + block(h)
        return self.head(h)


def lstm_classifier() -> nn.Module:
    """The architecture of ``lstm_state.pt``."""
    return LSTMClassifier()


def residual_mlp() -> nn.Module:
    """The architecture of ``residual_state.pt``."""
    return ResidualMLP()
