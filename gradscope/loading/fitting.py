"""Fits a state_dict to an architecture: prefixes of wrappers, tied weights, old files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from gradscope.errors import LoadError
from gradscope.loading.checkpoint import StateDict, some, unnamed

_WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
ASSIGNED = 256 << 20
"""Bytes from which tensors of a file are not copied into those of the architecture."""

_HINT = "Check --arch and --arch-args."


def fit(
    module: torch.nn.Module, state: StateDict, where: str, assigned: bool = False
) -> tuple[str, ...]:
    """Load a state_dict into a module, prefixes of wrappers stripped.

    Args:
        module: it keeps its tensors, unless they are assigned.
        state: of the file.
        where: for messages.
        assigned: the file's tensors become the parameters. Only where nothing else holds those of
            the constructor, as a list of them or a view: it would go on with those.

    Returns:
        notes for the user.

    Raises:
        LoadError: lists missing, unexpected and mis-shaped keys.
    """
    wanted = module.state_dict(keep_vars=True)
    if unnamed(state.tensors) and not set(state.tensors) & set(wanted):
        return _in_order(module, state, where)
    notes, tensors = _renamed(dict(state.tensors), wanted)
    tensors |= _tied(tensors, wanted)
    missing = [k for k in wanted if k not in tensors]
    counters = [k for k in missing if k.endswith("num_batches_tracked")]
    if counters:
        notes.append("batch norms without num_batches_tracked (an old file): taken as trained")
        tensors |= {k: torch.tensor(1) for k in counters}
        missing = [k for k in missing if k not in tensors]
    unexpected = [k for k in tensors if k not in wanted]
    shapes = [
        f"{k} is {tuple(tensors[k].shape)}, the architecture has {tuple(v.shape)}"
        for k, v in wanted.items()
        if isinstance(v, torch.Tensor) and k in tensors and tensors[k].shape != v.shape
    ]
    if missing or unexpected or shapes:
        raise LoadError(_mismatch(missing, unexpected, shapes), where=where, hint=_HINT)
    said = _types(tensors, wanted)
    try:
        if assigned and is_large(wanted) and _is_plain(module):
            _assign(module, tensors, wanted)
        else:
            module.load_state_dict(tensors)
    except (RuntimeError, TypeError, ValueError) as error:
        first = str(error).split("\n")[0]
        raise LoadError(f"does not fit the architecture: {first}", where=where) from error
    return (*notes, *said)


def is_large(tensors: Mapping[str, torch.Tensor]) -> bool:
    """Whether the tensors of a file are to become the parameters themselves."""
    return sum(v.nbytes for v in tensors.values() if isinstance(v, torch.Tensor)) >= ASSIGNED


def _is_plain(module: torch.nn.Module) -> bool:
    """Whether parameters are of no classes of their own, which assigning would not keep."""
    return all(type(p) is torch.nn.Parameter for p in module.parameters())


def _assign(module: torch.nn.Module, tensors: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """The tensors become the parameters, in the architecture's types; what it ties stays tied."""
    tied = _shared(module)
    module.load_state_dict(dict(_apart(tensors, wanted)), assign=True)
    for places in tied:
        owner, name = places[-1]  # the one that is loaded last, as where numbers are copied
        for other, alias in places[:-1]:
            setattr(other, alias, getattr(owner, name))


def _apart(tensors: Mapping[str, Any], wanted: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Tensors of the wanted types, none of which lies on another's memory, or on its own twice."""
    seen: dict[int, int] = {}
    for name, tensor in tensors.items():
        own = wanted[name]
        if not isinstance(tensor, torch.Tensor) or not isinstance(own, torch.Tensor):
            yield name, tensor  # extra state
            continue
        found = tensor.to(own.dtype)
        first = seen.setdefault(found.untyped_storage().data_ptr(), id(own))
        overlaps = any(s == 0 and n > 1 for s, n in zip(found.stride(), found.shape, strict=True))
        yield name, found.clone() if overlaps or first != id(own) else found


def _shared(module: torch.nn.Module) -> list[list[tuple[torch.nn.Module, str]]]:
    """The places of each tensor that has several."""
    places: dict[int, list[tuple[torch.nn.Module, str]]] = {}
    for owner in module.modules():
        for held in (owner._parameters, owner._buffers):
            for name, tensor in held.items():
                if tensor is not None:
                    places.setdefault(id(tensor), []).append((owner, name))
    return [p for p in places.values() if len(p) > 1]


def _in_order(module: torch.nn.Module, state: StateDict, where: str) -> tuple[str, ...]:
    """Tensors without names: the architecture's parameters, one after the other.

    Raises:
        LoadError: there are others.
    """
    names = [n for n, _ in module.named_parameters()]
    own = [p for _, p in module.named_parameters()]
    given = list(state.tensors.values())
    if [p.shape for p in own] != [t.shape for t in given]:
        pairs = enumerate(zip(own, given, strict=False))
        at = next((i for i, (p, t) in pairs if p.shape != t.shape), min(len(own), len(given)))
        first = f"{names[at]} is {tuple(own[at].shape)}" if at < len(own) else "there is none"
        got = f"is {tuple(given[at].shape)}" if at < len(given) else "is missing"
        what = (
            f"{len(given)} tensors without names do not fit the {len(own)} parameters of the "
            f"architecture: number {at} {got}, {first}"
        )
        raise LoadError(what, where=where, hint=_HINT)
    with torch.no_grad():
        for parameter, tensor in zip(own, given, strict=True):
            parameter.copy_(tensor)
    left = [n for n, _ in module.named_buffers()]
    buffers = f"; buffers are those of the architecture: {some(left, 3)}" if left else ""
    return (f"{len(given)} tensors without names: taken in the order of the parameters{buffers}",)


def _types(tensors: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]) -> list[str]:
    """Said where the file's type is not the architecture's."""
    pairs = {
        (str(tensors[k].dtype).removeprefix("torch."), str(v.dtype).removeprefix("torch."))
        for k, v in wanted.items()
        if isinstance(v, torch.Tensor) and v.is_floating_point() and tensors[k].dtype != v.dtype
    }
    return [f"the file's weights are {a}, the architecture runs in {b}" for a, b in sorted(pairs)]


def _tied(
    tensors: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Names that a file leaves out since the architecture ties them to one that it has."""
    by_tensor = {id(v): k for k, v in wanted.items() if k in tensors}
    return {
        k: tensors[by_tensor[id(v)]]
        for k, v in wanted.items()
        if k not in tensors and id(v) in by_tensor
    }


def _mismatch(missing: list[str], unexpected: list[str], shapes: list[str]) -> str:
    parts = []
    if missing:
        parts.append(f"missing {len(missing)}: {some(missing)}")
    if unexpected:
        parts.append(f"unexpected {len(unexpected)}: {some(unexpected)}")
    if shapes:
        parts.append(f"mis-shaped {len(shapes)}: {some(shapes, 3)}")
    return "does not fit the architecture: " + "; ".join(parts)


def _renamed(
    tensors: dict[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]
) -> tuple[list[str], dict[str, torch.Tensor]]:
    """The names of the architecture, where wrappers have put something before or between them."""
    notes: list[str] = []
    for wrapper in _WRAPPERS:
        if any(wrapper in k for k in tensors) and not any(wrapper in k for k in wanted):
            tensors = {k.replace(wrapper, ""): v for k, v in tensors.items()}
            notes.append(f"wrapper's prefix '{wrapper}' taken out of the names")
    if set(wanted) <= set(tensors) or not wanted:
        return notes, tensors
    for prefix in _prefixes(tensors, wanted):
        inside = {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
        lacking = [k for k in wanted if k not in inside and not k.endswith("num_batches_tracked")]
        if lacking and not set(lacking) <= set(_tied(inside, wanted)):
            continue
        outside = [k for k in tensors if not k.startswith(prefix)]
        left = f"; {some(outside, 3)} outside it left out" if outside else ""
        return [*notes, f"prefix '{prefix}' of the names stripped{left}"], inside
    common = _common_prefix(list(tensors))
    if common and not any(k.startswith(common) for k in wanted):  # for a message that helps
        return notes, {k[len(common) :]: v for k, v in tensors.items()}
    return notes, tensors


def _prefixes(
    tensors: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]
) -> Iterator[str]:
    """What may stand before every name: ``module.``, a LightningModule's ``net.``, ..."""
    first = max(wanted, key=lambda k: (not k.endswith("num_batches_tracked"), len(k)))
    found = {k[: -len(first)] for k in tensors if k.endswith(f".{first}")}
    yield from sorted(found, key=lambda p: (len(p), p))


def _common_prefix(names: list[str]) -> str:
    """``module.`` if every name begins so; never the whole path of a single layer."""
    heads = {n.partition(".")[0] for n in names}
    nested = all(n.count(".") >= 2 for n in names)
    return f"{heads.pop()}." if len(heads) == 1 and nested else ""
