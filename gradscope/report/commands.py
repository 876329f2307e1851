"""The next command to type. Each one works as printed."""

from __future__ import annotations

from dataclasses import replace

from gradscope.attribution import works
from gradscope.commandline import command_for, fix_command
from gradscope.config import DataSettings, LoadSettings, Settings
from gradscope.diagnosis import Inspection, Verdict
from gradscope.findings import Cause, Severity
from gradscope.judgement import lead
from gradscope.measurements import Measurements


def next_commands(inspection: Inspection, *, all_shown: bool = False) -> list[tuple[str, str]]:
    """(command, what it is good for), the most useful first.

    Args:
        inspection: to go on from.
        all_shown: every layer stands in the report already.
    """
    m = inspection.measurements
    settings = inspection.settings or _settings_of(m)
    if settings.in_memory:
        return _explained(inspection)
    base = command_for(settings)
    if not m.heads and not m.was_run:
        data = replace(settings.data, data=settings.data.data or "SAMPLE.npz")
        built = replace(settings, load=replace(settings.load, arch="FILE.py:factory"), data=data)
        why = "with the code that builds the model: activations, gradients and the ledger"
        return [(command_for(built), why)]
    found = []
    if not m.heads:
        whole = replace(settings, probe=replace(settings.probe, gradients=True))
        found.append((command_for(whole), "with gradients, and where they go"))
    elif m.sample.synthetic:
        real = replace(settings, data=replace(settings.data, data="SAMPLE.npz", input_shape={}))
        found.append((command_for(real), "with real samples (x, and labels y): a verdict"))
    elif not m.sample.labels:
        why = "with labels y: tells converged from stuck"
        labelled = replace(settings, data=replace(settings.data, data="LABELLED.npz"))
        found.append((command_for(labelled), why))
    elif m.skill is not None and not m.skill.held_out:
        found.append((f"{base} --val HELD_OUT.npz", "skill on data that it was not trained on"))
    if _raw_inputs(inspection, settings):
        standardised = replace(settings, data=replace(settings.data, standardise=True))
        why = "if it was trained on standardised data: is it the data or the model?"
        found.insert(0, (command_for(standardised), why))
    found += _about(inspection, settings)
    if not all_shown:
        found.append((f"{base} --all", "every layer, gate, parameter and finding, and what to do"))
    return found


def _raw_inputs(inspection: Inspection, settings: Settings) -> bool:
    data = settings.data
    large = Cause.LARGE_INPUTS in inspection.diagnosis.causes
    return large and data.data is not None and ":" not in data.data and not data.standardise


def _about(inspection: Inspection, settings: Settings) -> list[tuple[str, str]]:
    """What the gravest finding means, and an experiment where labels allow one."""
    found = _explained(inspection)
    m, verdict = inspection.measurements, inspection.diagnosis.verdict
    if m.skill is None:
        return found
    if verdict is Verdict.UNHEALTHY and not settings.probe.outputs:
        found.append((fix_command(settings), "repairs a copy, trains it and proves it is better"))
    labelled = verdict in (Verdict.WARNING, Verdict.HEALTHY) and not works(m)
    if labelled and m.trial is None:
        tried = replace(settings, probe=replace(settings.probe, trial=400))
        found.append((command_for(tried), "trains copies, as it is and repaired: does it matter?"))
    return found


def _explained(inspection: Inspection) -> list[tuple[str, str]]:
    """The rule of the gravest finding, if there is one."""
    grave = [f for f in inspection.findings if f.severity is not Severity.INFORMATION]
    if not grave:
        return []
    first = lead(inspection.diagnosis.causes, grave)
    return [(f"gradscope rule {first.code}", "what this means and how sure it is")]


def _settings_of(m: Measurements) -> Settings:
    """As far as measurements tell."""
    arch = m.model.format.partition(" + ")[2].partition(",")[0] or None
    data = DataSettings(m.sample.path, m.sample.validation)
    return Settings(m.model.path, LoadSettings(arch), data)
