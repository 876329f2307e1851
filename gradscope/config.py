"""What the user chose: flags, and a settings file (``settings_file/``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class LoadSettings:
    """How to open a model file, and what of it may run.

    Attributes:
        arch: ``FILE.py:factory`` or ``package.module:factory``.
        arch_args: keyword arguments for the factory.
        allow: classes admitted beyond torch's own: ``package.module``, ``package.module.Class`` or
            ``__main__.Net=FILE.py:Net``.
        trust_model: run whatever the file contains.
        key: which state_dict of a checkpoint; None chooses.
        values: arguments of forward that are no tensors, by name: ``--input-value``.
    """

    arch: str | None = None
    arch_args: Mapping[str, object] = field(default_factory=dict)
    allow: tuple[str, ...] = ()
    trust_model: bool = False
    key: str | None = None
    values: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class DataSettings:
    """Which samples to run.

    Attributes:
        data: ``--data``; None synthesises an input.
        val: ``--val``, held-out data in the same forms.
        samples: how many at most; None means all.
        batch_size: samples a pass.
        seed: of the cut, of synthesised inputs and of the cotangents.
        input_shape: shapes of inputs by name, without the sample axis (made-up inputs: or with it
            where the model takes nothing else); the name "" is
            the only or first input. Samples of a file are laid out so.
        label_column: ``--label-column``, the name or number of the column of labels.
        standardise: feed (x - mean) / sd of the chosen samples.
    """

    data: str | None = None
    val: str | None = None
    samples: int | None = 512
    batch_size: int = 512
    seed: int = 0
    input_shape: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    label_column: str | None = None
    standardise: bool = False


@dataclass(frozen=True)
class ProbeSettings:
    """How to measure.

    Attributes:
        loss: auto, cross-entropy, bce, mse, nll or MODULE:FN.
        draws: random cotangents, K; each costs one backward pass a batch.
        mode: eval or train.
        device: where to run.
        save_gradients: file for the mean |g| of every element.
        outputs: names of the model's outputs to probe, the loss taken at the first; none: all.
        trial: least steps of a trial on copies, untreated and repaired; 0: none.
        trial_optimizer: of the trial: adam, adamw, sgd or rmsprop; None: the checkpoint's, or adam.
        trial_rate: learning rate of the trial; None: the checkpoint's, or the usual ones.
        trial_momentum: of sgd or rmsprop; None: the checkpoint's, or .9 of sgd.
        gradients: False looks at activations and weights only.
        dtype: floating type to measure in: bf16, fp16, float32, float64; None: as in the file.
        device_map: which module is on which device, or on the disk: auto, disk, FILE.json.
    """

    loss: str = "auto"
    draws: int = 4
    mode: str = "eval"
    device: str = "cpu"
    save_gradients: str | None = None
    outputs: tuple[str, ...] = ()
    trial: int = 0
    trial_optimizer: str | None = None
    trial_rate: float | None = None
    trial_momentum: float | None = None
    gradients: bool = True
    dtype: str | None = None
    device_map: str | None = None


@dataclass(frozen=True)
class FixSettings:
    """How to repair.

    Attributes:
        out: the file to write; None: none (``--plan``).
        plan_only: say what would be done, and do nothing.
        method: the one remedy to use; None: as planned.
        finetune: whether to train after the remedy.
        regularize: none, l2, l1, adamw, max-norm or spectral.
        strength: of it.
        epochs: of fine-tuning; None: 40, which are of 25 steps at least where samples are few, and
            up to four times as many while the held-out loss falls.
        rate: learning rate; None: 1e-3, or 3e-4 from 30 hidden layers.
        optimizer: adam, adamw or sgd.
        batch_size: samples a step.
        patience: epochs without a better score after which it ends, if little is left to gain or
            held-out losses rise; 0: it does not.
        freeze: globs of parameters that stay as they are.
        rescale: without a restart, which is no rescaling.
        alpha: of the remedy ``alpha``; None: it was not asked for by its number.
        layers: globs of layers or parameters that remedies may change; none: all.
        emit_only: keep the run, ready to be started, and do nothing else.
        max_drift: without labels, by how much of their root mean square the outputs may move.
        shard: parameters in training lie in parts over the processes.
        tensorboard: whether the run keeps events for TensorBoard.
    """

    out: str | None = None
    plan_only: bool = False
    method: str | None = None
    finetune: bool = True
    regularize: str = "l2"
    strength: float = 1e-4
    epochs: int | None = None
    rate: float | None = None
    optimizer: str = "adam"
    batch_size: int = 32
    patience: int = 10
    freeze: tuple[str, ...] = ()
    rescale: bool = False
    alpha: float | None = None
    layers: tuple[str, ...] = ()
    emit_only: bool = False
    max_drift: float = 0.1
    shard: bool = False
    tensorboard: bool = False


@dataclass(frozen=True)
class Settings:
    """Everything that one run needs to know.

    ``in_memory``: the model or its data come from a program, so no command makes the report.
    ``rules``: thresholds of rules, code or name -> threshold -> number, from a settings file, and
    ``rules_from``, that file; ``limits``: the same from flags, which come first, as
    ``GS101.total=-4``.
    """

    model: str
    load: LoadSettings = field(default_factory=LoadSettings)
    data: DataSettings = field(default_factory=DataSettings)
    probe: ProbeSettings = field(default_factory=ProbeSettings)
    rules: Mapping[str, object] = field(default_factory=dict)
    rules_from: str | None = None
    limits: tuple[str, ...] = ()
    in_memory: bool = False

    def inputs(self) -> tuple[str | None, ...]:
        """Everything that is read, as the user named it: none of it may be written to."""
        classes = (text.partition("=")[2] or None for text in self.load.allow)
        settings_file = self.rules_from.partition(" [")[0] if self.rules_from else None
        code = (self.load.arch, *classes, self.probe.loss, self.probe.device_map)
        return (self.model, self.data.data, self.data.val, *code, settings_file)


@dataclass(frozen=True)
class Ignore:
    """Findings that a settings file sets aside.

    Attributes:
        rule: code, prefix or name.
        reason: why, in the user's words.
        where: glob over the finding's place as it is printed; None: any.
        model: file or glob, relative to the working directory; None: any.
    """

    rule: str
    reason: str
    where: str | None = None
    model: str | None = None


@dataclass(frozen=True)
class CheckSettings:
    """What a check counts, and what makes it fail.

    Attributes:
        fail_on: error, warning, undetermined or never.
        codes: of the rules that are selected; None: all.
        ignores: findings to set aside, each with the codes that it is about.
        tolerance: by how much the number of a known finding may get worse, as a share of the larger
            of that number and its threshold.
        accept: everything found is known, as it is about to be written to a baseline.
    """

    fail_on: str = "error"
    codes: frozenset[str] | None = None
    ignores: tuple[tuple[Ignore, frozenset[str]], ...] = ()
    tolerance: float = 0.1
    accept: bool = False

    def selects(self, code: str) -> bool:
        """Whether findings of this rule are looked at."""
        return self.codes is None or code in self.codes
