"""Scores and losses as TensorBoard reads them, while a model is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gradscope.repair.training import Scored

Told = Callable[[int, Scored, float | None], None]


@contextmanager
def events(folder: str | None) -> Iterator[Told]:
    """What is to be told of every score; each lands in ``folder`` at once.

    What an earlier process wrote there of later steps, and lost, is not shown twice.

    Args:
        folder: of the events; None: none are written.
    """
    if folder is None:
        yield lambda step, score, loss: None
        return
    from torch.utils.tensorboard import SummaryWriter

    writers: list[SummaryWriter] = []

    def told(step: int, score: Scored, loss: float | None) -> None:
        if not writers:
            writers.append(SummaryWriter(folder, purge_step=step))
        writer = writers[0]
        values = {"held-out/points": score.mean, "held-out/loss": float(score.losses.mean())}
        if loss is not None:
            values["training/loss"] = loss
        for name, value in values.items():
            writer.add_scalar(name, value, step)
        writer.flush()

    try:
        yield told
    finally:
        for writer in writers:
            writer.close()
