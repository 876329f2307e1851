"""A model in training whose parameters, gradients and optimiser lie in parts over the processes.

It is a copy, sharded by torch's ``fully_shard`` (FSDP2): the one that was loaded stays as it is, to
be measured and written. What leaves this training (scores, checkpoints, the best values) is whole:
a checkpoint does not depend on who wrote it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils._pytree import tree_map

from gradscope.errors import OptionError
from gradscope.repair.compare import held
from gradscope.repair.layout import Layout
from gradscope.repair.training import Trainee

_INSTEAD = "Leave --shard out: every process then holds the whole model."


@contextmanager
def in_parts(trainee: Trainee) -> Iterator[Trainee]:
    """A sharded copy in the hands of the same optimiser; its values are the model's afterwards.

    Raises:
        OptionError: this model cannot be sharded.
    """
    module = trainee.module
    parts = _sharded(module, trainee.shares.ranks.mesh(trainee.device))
    own, theirs = dict(module.named_parameters()), dict(parts.named_parameters())
    names = {id(p): n for n, p in own.items()}
    enter_call, set_training = held(parts, trainee.freeze)
    yield replace(
        trainee,
        module=parts,
        parameters=[theirs[names[id(p)]] for p in trainee.parameters],
        enter_call=enter_call,
        set_training=set_training,
        layout=IN_PARTS,
    )
    with torch.no_grad():
        for name, tensor in (*parts.named_parameters(), *parts.named_buffers()):
            owner = own.get(name)
            (module.get_buffer(name) if owner is None else owner).copy_(IN_PARTS.whole(tensor))


class InParts(Layout):
    """Of every parameter each process holds some rows."""

    def whole(self, value: Any) -> Any:
        """Everything in a tree of tensors in one piece; all processes call it alike."""

        def gathered(leaf: Any) -> Any:
            return leaf.full_tensor() if isinstance(leaf, DTensor) else leaf

        return tree_map(gathered, value)

    def local(self, tensors: list[torch.Tensor]) -> list[torch.Tensor]:
        """The rows that lie here; sums over these add up over the processes."""
        return [t.to_local() if isinstance(t, DTensor) else t for t in tensors]

    def total_norm(self, gradients: list[torch.Tensor]) -> torch.Tensor:
        """One sum over the processes; torch's own takes one for every tensor."""
        squares = [g.norm().double().square() for g in self.local(gradients)]
        total = torch.stack(squares).sum()
        meshes = [g.device_mesh for g in gradients if isinstance(g, DTensor)]
        if meshes:
            dist.all_reduce(total, group=meshes[0].get_group())
        return total.sqrt()

    @torch.no_grad()
    def clip(self, parameters: list[torch.Tensor], most: float) -> None:
        """Scale their gradients down to a total norm of ``most``."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        factor = (most / (self.total_norm(gradients) + 1e-6)).clamp_max(1.0)
        for gradient in self.local(gradients):
            gradient.mul_(factor.to(gradient.dtype))

    def placed(self, value: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """This process's part of what all of them hold."""
        if not isinstance(like, DTensor) or isinstance(value, DTensor) or value.shape != like.shape:
            return value
        value = value.to(like.device)
        return distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None)


IN_PARTS = InParts()


def _sharded(module: torch.nn.Module, mesh: DeviceMesh) -> torch.nn.Module:
    """A copy; parameters are never whole in it but while a layer is run."""
    if any(isinstance(m, torch.jit.ScriptModule) for m in module.modules()):
        what = "TorchScript runs past Python and cannot be sharded"
        raise OptionError(what, where="--shard", hint=_INSTEAD)
    if any(p._backward_hooks for p in module.parameters()):
        what = "weights that are held at 0 (standardise before padding) cannot be sharded"
        raise OptionError(what, where="--shard", hint="Choose another --method, or leave it out.")
    own = dict(module.named_parameters())
    bare = {
        id(p): torch.nn.Parameter(p.detach().to("meta"), requires_grad=p.requires_grad)
        for p in own.values()
    }
    try:
        parts = copy.deepcopy(module, dict(bare))
        for block in (*_blocks(parts), parts):
            block.register_forward_hook(_use_all)
            fully_shard(block, mesh=mesh, reshard_after_forward=True)
        parts.to_empty(device=mesh.device_type)
    except (RuntimeError, ValueError, TypeError, AttributeError, NotImplementedError) as error:
        first = str(error).strip().split("\n")[0][:200]
        what = f"this model cannot be sharded ({type(error).__name__}: {first})"
        raise OptionError(what, where="--shard", hint=_INSTEAD) from error
    with torch.no_grad():
        for name, parameter in parts.named_parameters():
            IN_PARTS.enter(parameter, own[name].detach())
        for name, buffer in parts.named_buffers():
            buffer.copy_(module.get_buffer(name))
    return parts


def _use_all(block: torch.nn.Module, args: object, output: Any) -> Any:
    """Adds 0 times every parameter that is whole just now: FSDP2 exchanges the gradients that are
    there, and where a branch was taken by one process only they would not match."""
    own = [p for p in block.parameters() if p.requires_grad and not isinstance(p, DTensor)]
    if not own or not torch.is_grad_enabled():
        return output
    left = [torch.stack([p.sum() for p in own]).sum() * 0]

    def added(leaf: Any) -> Any:
        takes = isinstance(leaf, torch.Tensor) and leaf.is_floating_point() and left
        return leaf + left.pop().to(leaf.dtype) if takes else leaf

    return tree_map(added, output)


def _blocks(module: torch.nn.Module) -> Iterator[torch.nn.Module]:
    """What stands in a row and holds parameters that nothing else holds: each is gathered by itself
    when it is run, and what is left with the whole."""
    users: dict[int, int] = {}
    for m in module.modules():
        for p in m.parameters(recurse=False):
            users[id(p)] = users.get(id(p), 0) + 1
    for row in module.modules():
        if isinstance(row, torch.nn.Sequential):
            for block in row:
                held_here = list(block.parameters())
                if held_here and not any(users[id(p)] > 1 for p in held_here):
                    yield block
