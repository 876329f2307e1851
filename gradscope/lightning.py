"""The callback for Lightning: ``pip install 'gradscope-cli[lightning]'``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ModuleNotFoundError as error:
    hint = "pip install 'gradscope-cli[lightning]'"
    raise ModuleNotFoundError(f"gradscope.lightning needs Lightning: {hint}") from error

from gradscope.api import Report
from gradscope.callbacks import Moment, Watch


class GradscopeCallback(Callback):
    """Examines the module every so many steps of its optimiser, on the first process.

    What was measured is logged as ``gradscope/total`` (decades), ``gradscope/skill``,
    ``gradscope/saturated`` and ``gradscope/errors``.

    Args:
        sample: what to run it on, as :func:`gradscope.inspect` takes it, readable again and again:
            what ``forward`` takes, and labels.
        every: steps from one examination to the next.
        on_report: called with the step and the report; what it raises ends the training.
        options: everything else that :func:`gradscope.inspect` takes: ``val``, ``samples``, ...

    Attributes:
        moments: the examinations so far, in short.
        report: the last one, whole; None before the first.
    """

    def __init__(
        self,
        sample: Any,
        *,
        every: int = 100,
        on_report: Callable[[int, Report], object] | None = None,
        **options: Any,
    ) -> None:
        Watch(None, sample, every=every, **options)  # refuses what makes no sense, before training
        self.moments: list[Moment] = []
        self.report: Report | None = None
        self._sample, self._on_report, self._options = sample, on_report, options
        self._every, self._last = every, 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Lightning's own call; a step of the optimiser may take several batches."""
        step = trainer.global_step
        if step == self._last or step % self._every or not trainer.is_global_zero:
            return
        self._last = step
        watch = Watch(pl_module, self._sample, on_report=self._on_report, **self._options)
        self.report = watch.examine(step)
        self.moments += watch.moments
        values = {f"gradscope/{k}": v for k, v in watch.moments[0].scalars().items()}
        pl_module.log_dict(values, rank_zero_only=True)
