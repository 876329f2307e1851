"""From ``--data`` to a :class:`~gradscope.model.Sample` that can be run again and again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gradscope.config import DataSettings
from gradscope.errors import DataError, OptionError
from gradscope.loading import from_code, from_file, given
from gradscope.loading.shared import taken_out, with_shared
from gradscope.loading.sources import open_source
from gradscope.loading.synthetic import synthesise
from gradscope.loading.unchanged import Stamp
from gradscope.model import LoadedModel, Prepared, Sample


def load_sample(
    model: LoadedModel, settings: DataSettings, loss: str = "auto", held: Any = None
) -> Sample:
    """The sample that ``--data`` names, or a synthesised one; the model runs on it.

    Args:
        model: as loaded.
        settings: which samples.
        loss: ``--loss``; labels are read accordingly.
        held: data in memory, in place of a name.

    Raises:
        DataError: it cannot be read or does not fit the model.
        OptionError: an option makes no sense.
    """
    _check_runs(model)
    if held is not None:
        return given.sample_of(model, held, "the sample", settings, loss)
    if settings.data is None:
        return with_shared(model, synthesise(model, settings), {})
    if not settings.data:
        raise OptionError("is empty. Name a file, a folder or module:callable.", where="--data")
    return _open(model, settings.data, settings, loss)


def load_validation(
    model: LoadedModel,
    settings: DataSettings,
    like: Sample | None = None,
    loss: str = "auto",
    held: Any = None,
) -> Sample | None:
    """Held-out data of ``--val``; None if there are none.

    Args:
        model: as loaded.
        settings: which samples.
        like: the sample of ``--data``: numbers of classes, means and sds are those found there.
        loss: ``--loss``; labels are read accordingly.
        held: data in memory, in place of a name.

    Raises:
        DataError: it cannot be read, does not fit the model, or has no labels.
    """
    prepared = like.prepared if like else None
    if held is not None:
        sample = given.sample_of(model, held, "the held-out data", settings, loss, prepared)
    elif settings.val is not None:
        _check_runs(model)
        sample = _open(model, settings.val, settings, loss, prepared)
    else:
        return None
    if not sample.labels:
        hint = "Add an array y, or say which it is with --label-column."
        raise DataError("held-out data without labels say nothing", where=sample.path, hint=hint)
    return sample


def _check_runs(model: LoadedModel) -> None:
    if model.module is None:
        raise DataError("there is no architecture to run data through", where=model.path)


def _open(
    model: LoadedModel,
    data: str,
    settings: DataSettings,
    loss: str,
    like: Prepared | None = None,
) -> Sample:
    if ":" in data and not _is_file(data):
        if settings.standardise:
            hint = "Let it yield what the model is to be fed."
            what = f"does not change what {data} yields"
            raise OptionError(what, where="--standardise", hint=hint)
        return from_code.sample_of(model, data, settings, loss)
    first = Stamp.of(Path(data))
    source, shared = taken_out(model, open_source(data, settings))
    sample = from_file.sample_of(model, source, settings, loss, like, first)
    return with_shared(model, sample, shared)


def _is_file(data: str) -> bool:
    try:
        return Path(data).exists()
    except (OSError, ValueError):  # too long, or with a NUL byte
        return True
