"""Measures a model on a sample: calibration, loss-free sweep, loss sweep, weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from gradscope.config import ProbeSettings
from gradscope.findings import Skipped
from gradscope.measurements import (
    Attention,
    GradientStats,
    Measurements,
    ModelInfo,
    RunInfo,
    SampleInfo,
    Skill,
)
from gradscope.model import LoadedModel, Sample
from gradscope.probe import assemble
from gradscope.probe.first_nonfinite import find_first, is_nonfinite
from gradscope.probe.inputs import compute as compute_inputs
from gradscope.probe.kinds import class_name
from gradscope.probe.probed import Probed
from gradscope.probe.ready import check_ready
from gradscope.probe.reparam import made_weights, pair_names
from gradscope.probe.scoring import Scorer
from gradscope.probe.state import require_gradients, set_mode, untouched
from gradscope.probe.subject import Names, Subject
from gradscope.probe.sums import Sums
from gradscope.progress import Progress
from gradscope.ranks import ALONE, Ranks


def measure(
    model: LoadedModel,
    sample: Sample | None,
    validation: Sample | None,
    settings: ProbeSettings,
    seed: int,
    batch_size: int,
    progress: Progress,
    ranks: Ranks = ALONE,
) -> Measurements:
    """Everything that can be measured of a model.

    Args:
        model: as loaded; what the probe changes on it is restored.
        sample: what to run it on; None if only the weights can be examined.
        validation: held-out data for the skill.
        settings: how to measure.
        seed: of the cotangents.
        batch_size: for the report.
        progress: told about the sweeps.
        ranks: the processes that share the sample; every one of them gets the whole result.

    Raises:
        ProbeError: the model was loaded, but nothing could be measured.
        OptionError: the loss or an output file makes no sense.
    """
    if model.module is None or sample is None:
        return _weights_only(model, seed, batch_size, settings)
    check_ready(model.module, model.path)
    device = torch.device(settings.device)
    stays = model.placed or device.type == "cpu"
    module = model.module if stays else model.module.to(device)
    with untouched(module) as snapshot:
        subject = Subject(module, device, snapshot, settings.outputs, model.origins)
        seen = _passes(model, subject, sample, validation, settings, seed, progress, ranks)
    result = _result(model, sample, validation, settings, seed, batch_size, seen)
    if not is_nonfinite(result):
        return result
    with untouched(module):
        set_mode(module, settings.mode, sample.samples)
        require_gradients(module)
        return replace(result, first_nonfinite=find_first(subject, sample))


@dataclass(frozen=True)
class _Seen:
    """What the passes over a model showed.

    Attributes:
        probed: the loss-free sweep.
        trainable: parameters by name: requires_grad as saved.
        fresh: batch norms that use batch statistics.
        skipped: what could not be set.
        losses: statistics of the gradients of the loss; None without labels.
        skill, sample_skill: as in :class:`gradscope.measurements.Measurements`.
        scoring: forward and backward passes for these.
        made: weights that layers make of their parameters.
        attention: of the first samples.
    """

    probed: Probed
    trainable: Mapping[str, bool]
    fresh: Sequence[str]
    skipped: Sequence[Skipped]
    losses: Mapping[str, GradientStats] | None
    skill: Skill | None
    sample_skill: Skill | None
    scoring: tuple[int, int]
    made: Mapping[str, torch.Tensor | None]
    attention: tuple[Attention, ...]


def _passes(
    model: LoadedModel,
    subject: Subject,
    sample: Sample,
    validation: Sample | None,
    settings: ProbeSettings,
    seed: int,
    progress: Progress,
    ranks: Ranks,
) -> _Seen:
    """All that runs the model, but for the search for what is not finite."""
    module, whole = subject.module, model.batch is not None
    trainable = {name: t.requires_grad for name, t in subject.names.tensors.items()}
    fresh, skipped = set_mode(module, settings.mode, sample.samples)
    skipped += require_gradients(module)
    probed = Probed(subject, settings, seed, ranks)
    probed.run(sample, progress, whole=whole)
    scorer = Scorer(subject, settings.loss, probed.squash(), probed.shares)
    labelled = sample.labels and settings.gradients
    losses = probed.loss_gradients(sample, scorer, progress) if labelled else None
    skill = _skill(scorer, sample, validation, progress)
    own = None
    if skill is not None and skill.held_out and scorer.seen(sample):
        own = scorer.skill(sample, held_out=False, progress=progress)
    scoring = scorer.passes()
    if ranks.rank == 0:
        probed.save(settings.save_gradients, losses is not None)
    made = made_weights(module)
    attention = probed.attention(sample, whole=whole)
    return _Seen(
        probed, trainable, fresh, skipped, losses, skill, own, scoring, made, attention
    )  # fmt: skip


def _result(
    model: LoadedModel,
    sample: Sample,
    validation: Sample | None,
    settings: ProbeSettings,
    seed: int,
    batch_size: int,
    seen: _Seen,
) -> Measurements:
    """From what the passes showed to the numbers of a report."""
    probed, sums, subject = seen.probed, seen.probed.sums, seen.probed.subject
    names, owners = subject.names, dict(subject.module.named_modules())
    found_sites = assemble.sites(sums)
    heads, notes = assemble.heads(probed.first, sums, probed.batch_axes())
    found = assemble.parameters(
        names, owners, found_sites, seen.trainable, probed.statistics or None, seen.losses,
        seen.made, probed.used(),
    )  # fmt: skip
    run = RunInfo(
        mode=settings.mode,
        seed=seed,
        outputs=settings.outputs,
        draws=probed.draws,
        batch_size=batch_size,
        device=str(subject.device),
        dtype=_dtypes(names),
        torch=torch.__version__,
        forward_passes=sums.forward_passes + seen.scoring[0],
        backward_passes=sums.backward_passes + seen.scoring[1],
        batch_statistics=tuple(seen.fresh),
    )
    unseen = (*seen.skipped, *probed.skipped, *notes, *assemble.without_units(sums))
    return Measurements(
        model=_model_info(model, names, seen.trainable, tuple(subject.remembers)),
        sample=_sample_info(sample, validation, sums),
        run=run,
        heads=heads,
        layers=assemble.layers(found, found_sites, owners, names.origins),
        sites=found_sites,
        parameters=found,
        skill=seen.skill,
        sample_skill=seen.sample_skill,
        skipped=(*_missing(model), *unseen),
        inputs=compute_inputs(sums.inputs, list(sample.inputs)),
        attention=seen.attention,
    )


def _skill(
    scorer: Scorer, sample: Sample, validation: Sample | None, progress: Progress
) -> Skill | None:
    """On held-out data where there are any, else on the sample."""
    if validation is not None and validation.labels:
        progress.start("held-out data", validation.samples)
        result = scorer.skill(validation, held_out=True, progress=progress)
        progress.finish()
        return result
    return scorer.skill(sample, held_out=False, progress=progress) if sample.labels else None


def _weights_only(
    model: LoadedModel, seed: int, batch_size: int, settings: ProbeSettings
) -> Measurements:
    """What a state_dict alone shows."""
    tensors = {k: v for k, v in model.state.items() if v.is_floating_point() or v.is_complex()}
    by_id = {id(v): k for k, v in tensors.items()}
    names = Names(by_id, {k: (k,) for k in tensors}, {k: i for i, k in enumerate(tensors)}, tensors)
    made = pair_names(tensors)
    found = assemble.parameters(names, {}, (), dict.fromkeys(tensors, True), None, None, made)
    trainable = dict.fromkeys(tensors, True)
    return Measurements(
        model=_model_info(model, names, trainable),
        sample=SampleInfo(None, 0, None, False, False),
        run=RunInfo(
            settings.mode, seed, 0, batch_size, "cpu", _dtypes(names), torch.__version__, 0, 0
        ),
        layers=assemble.layers(found, (), {}),
        parameters=found,
        skipped=_missing(model),
    )


def _missing(model: LoadedModel) -> tuple[Skipped, ...]:
    return tuple(Skipped(what, reason) for what, reason in model.missing)


def _model_info(
    model: LoadedModel,
    names: Names,
    trainable: Mapping[str, bool],
    remembers: tuple[str, ...] = (),
) -> ModelInfo:
    shown = ", ".join(remembers[:3]) + (", ..." if len(remembers) > 3 else "")
    state = f"state between calls put back before each one: {shown}"
    numel = {k: t.numel() for k, t in names.tensors.items()}
    return ModelInfo(
        path=model.path,
        format=model.format,
        parameters=sum(numel.values()),
        trainable=sum(v for k, v in numel.items() if trainable.get(k, False)),
        class_name=class_name(model.module) if model.module is not None else None,
        notes=(*model.notes, state) if remembers else model.notes,
    )


def _sample_info(sample: Sample, validation: Sample | None, sums: Sums) -> SampleInfo:
    stride = max((site.squares.stride for site in sums.sites.values()), default=1)
    thinned = [f"medians and the ledger are over every {stride}th sample"] if stride > 1 else []
    info = SampleInfo(
        path=sample.path,
        samples=sums.samples,
        available=sample.available,
        synthetic=sample.synthetic,
        labels=sample.labels,
        inputs=dict(sample.inputs),
        notes=(*sample.notes, *thinned),
    )
    if validation is None:
        return info
    return replace(info, validation=validation.path, validation_samples=validation.samples)


def _dtypes(names: Names) -> str:
    kinds = {str(t.dtype).removeprefix("torch.") for t in names.tensors.values()}
    return ", ".join(sorted(kinds)) or "none"
