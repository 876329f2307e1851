"""Pickled modules that are more than modules, written instruction by instruction.

The tables are like those of :mod:`tests.hostile_streams`.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.pickle_assembler import (
    BUILD,
    DICT,
    EMPTY,
    FIRST,
    HOOKS,
    LIST,
    MARK,
    NEWOBJ,
    P2,
    RELU,
    SEQUENTIAL,
    SETITEM,
    STOP,
    TUPLE,
    call,
    dictionary,
    get,
    module,
    name,
    number,
    numbers,
    put,
    text,
)


def _shared_modules(depth: int) -> bytes:
    """Sequential(a, a) of Sequential(b, b) of ...: small, and 2 ** depth calls of the innermost."""
    inner = module()
    for i in range(depth):
        inner = module(
            SEQUENTIAL,
            _modules=DICT + text("a") + inner + put(i) + SETITEM + text("b") + get(i) + SETITEM,
        )
    return inner


IN_ITSELF = (
    name("torch.nn.modules.linear", "Identity") + EMPTY + NEWOBJ + put(1)
    + dictionary(**FIRST, friends=LIST + get(1) + b"a") + BUILD
)  # fmt: skip


def _nested(depth: int) -> bytes:
    inner = module()
    for _ in range(depth):
        inner = module(SEQUENTIAL, _modules=dictionary(a=inner))
    return inner


def _hook(file: str, cls: str, **state: bytes) -> bytes:
    return name(f"torch.nn.utils.{file}", cls) + EMPTY + NEWOBJ + dictionary(**state) + BUILD


MODULES: dict[str, Callable[[str], bytes]] = {
    # modules
    "a million million calls": lambda c: P2 + _shared_modules(40) + STOP,
    "modules nested 200 deep": lambda c: P2 + _nested(200) + STOP,
    "module within its own list": lambda c: P2 + IN_ITSELF + STOP,
    "child named forward": lambda c: (
        P2 + module(SEQUENTIAL, _modules=dictionary(forward=module())) + STOP
    ),
    "child named __class__": lambda c: (
        P2 + module(SEQUENTIAL, _modules=dictionary(__class__=module())) + STOP
    ),
    "child named a.b": lambda c: (
        P2 + module(SEQUENTIAL, _modules=DICT + text("a.b") + module() + SETITEM) + STOP
    ),
    "child without a name": lambda c: (
        P2 + module(SEQUENTIAL, _modules=DICT + text("") + module() + SETITEM) + STOP
    ),
    "child named 5": lambda c: (
        P2 + module(SEQUENTIAL, _modules=DICT + number(5) + module() + SETITEM) + STOP
    ),
    "child that is a size": lambda c: (
        P2
        + module(SEQUENTIAL, _modules=dictionary(a=call(name("torch", "Size"), numbers(1))))
        + STOP
    ),
    "parameter that is a dictionary": lambda c: (
        P2 + module(_parameters=dictionary(weight=HOOKS)) + STOP
    ),
    "tables that are lists": lambda c: P2 + module(_parameters=LIST) + STOP,
    "module without tables": lambda c: P2 + module(_modules=b"") + STOP,
    "training is a text": lambda c: P2 + module(training=text("yes")) + STOP,
    "hooks that are a list": lambda c: P2 + module(_forward_hooks=LIST + RELU + b"a") + STOP,
    "hook called always": lambda c: (
        P2 + module(_forward_hooks_always_called=DICT + number(0) + RELU + SETITEM) + STOP
    ),
    "hook with keywords": lambda c: (
        P2 + module(_forward_hooks_with_kwargs=DICT + number(0) + RELU + SETITEM) + STOP
    ),
    "weight norm of forward": lambda c: (
        P2
        + module(
            _forward_pre_hooks=DICT
            + number(0)
            + _hook("weight_norm", "WeightNorm", name=text("forward"), dim=number(0))
            + SETITEM
        )
        + STOP
    ),
    "spectral norm of training": lambda c: (
        P2
        + module(
            _forward_pre_hooks=DICT
            + number(0)
            + _hook(
                "spectral_norm",
                "SpectralNorm",
                name=text("training"),
                dim=number(0),
                eps=number(0),
                n_power_iterations=number(1),
            )
            + SETITEM
        )
        + STOP
    ),
    "pruning of forward": lambda c: (
        P2
        + module(
            _forward_pre_hooks=DICT
            + number(0)
            + _hook("prune", "Identity", _tensor_name=text("forward"))
            + SETITEM
        )
        + STOP
    ),
    "pruning with a mask of its own": lambda c: (
        P2
        + module(
            _forward_pre_hooks=DICT
            + number(0)
            + _hook(
                "prune",
                "PruningContainer",
                _tensor_name=text("w"),
                _pruning_methods=MARK + RELU + TUPLE,
            )
            + SETITEM
        )
        + STOP
    ),
    "padding of 2 ** 39": lambda c: (
        P2
        + module(name("torch.nn.modules.padding", "ZeroPad2d"), padding=numbers(1 << 39, 0, 0, 0))
        + STOP
    ),
    "padding beyond floats": lambda c: (
        P2
        + module(name("torch.nn.modules.padding", "ZeroPad2d"), padding=numbers(10**400, 0, 0, 0))
        + STOP
    ),
    "pooling to 100,000 x 100,000": lambda c: (
        P2
        + module(name("torch.nn.modules.pooling", "AdaptiveAvgPool2d"), output_size=number(100_000))
        + STOP
    ),
    "method of a user's class": lambda c: P2 + module(name("__main__", "Net"), forward=RELU) + STOP,
    # other kinds of object
    "fx graph": lambda c: (
        P2
        + call(
            name("torch.fx.graph_module", "reduce_graph_module"),
            dictionary(_code=text("import os")),
            text(""),
        )
        + STOP
    ),
    "DistributedDataParallel": lambda c: (
        P2 + module(name("torch.nn.parallel.distributed", "DistributedDataParallel")) + STOP
    ),
}
