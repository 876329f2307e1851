"""Pickles written instruction by instruction, which no pickler would write.

Tables of a name and the pickle, given the command that would leave a canary. Each stands as
``data.pkl`` in an archive that holds twelve bytes of storage under the key 0.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from tests.pickle_assembler import (
    BUILD,
    DICT,
    DTYPE,
    EMPTY,
    ENCODE,
    FALSE,
    FIRST,
    HOOKS,
    LINEAR,
    LIST,
    MARK,
    NEWOBJ,
    NONE,
    P2,
    P4,
    PERSID,
    RELU,
    SCALAR,
    SETITEM,
    STOP,
    TRUE,
    TUPLE,
    V2,
    call,
    dictionary,
    get,
    module,
    name,
    number,
    numbers,
    put,
    storage,
    system,
    tensor,
    text,
    weights,
)


def _laughs(depth: int) -> bytes:
    """A tuple that is small in memory and takes forever to be hashed or printed."""
    return text("a") + b"".join(put(i % 200) + get(i % 200) + b"\x86" for i in range(depth))


def _shared_dictionaries(width: int, levels: int) -> bytes:
    """Dictionaries whose entries are all the same dictionary, level by level: many paths."""
    inner = dictionary(w=tensor())
    for level in range(levels):
        entries = b"".join(text(str(i)) + get(level) + SETITEM for i in range(1, width))
        inner = DICT + text("0") + inner + put(level) + SETITEM + entries
    return inner


def _numpy_scalar(
    dtype: bytes, data: bytes = call(ENCODE, text("\0" * 8), text("latin1"))
) -> bytes:
    return call(SCALAR, dtype, data)


def _dtype_state(flags: int) -> bytes:
    parts = (number(3), text("<"), NONE, NONE, NONE, number(-1), number(-1), number(flags))
    return MARK + b"".join(parts) + TUPLE + BUILD


F8 = call(DTYPE, text("f8"), FALSE, TRUE)
CHANGED = (
    name("torch.nn.modules.linear", "Identity") + EMPTY + NEWOBJ
    + dictionary(**(FIRST | {"_forward_hooks": DICT + number(0) + RELU + SETITEM})) + put(1) + BUILD
)  # fmt: skip


STREAMS: dict[str, Callable[[str], bytes]] = {
    # what is lost, or changed after it was used
    "a call thrown away": lambda c: (
        P2
        + DICT
        + text("w")
        + call(name("__builtin__", "bytearray"), number(10**12))
        + SETITEM
        + text("w")
        + tensor()
        + SETITEM
        + STOP
    ),
    "os.system thrown away": lambda c: (
        P2 + DICT + text("w") + system(c) + SETITEM + text("w") + tensor() + SETITEM + STOP
    ),
    "a call left on the stack": lambda c: P2 + system(c) + dictionary(w=tensor()) + STOP,
    "a call popped": lambda c: P2 + system(c) + b"0" + dictionary(w=tensor()) + STOP,
    "a call in a reference": lambda c: (
        P2
        + dictionary(
            w=tensor(), m=MARK + text("module") + LINEAR + system(c) + system(c) + TUPLE + PERSID
        )
        + STOP
    ),
    "state changed after BUILD": lambda c: (
        P2
        + DICT
        + text("m")
        + CHANGED
        + SETITEM
        + text("x")
        + get(1)
        + text("_forward_hooks")
        + DICT
        + SETITEM
        + SETITEM
        + STOP
    ),
    "sizes changed after the call": lambda c: (
        P2
        + dictionary(
            w=tensor(
                size=LIST + put(1) + number(10**6) + b"a", stride=LIST + put(2) + number(0) + b"a"
            ),
            x=get(1) + number(0) + b"a",
            y=get(2) + number(0) + b"a",
        )
        + STOP
    ),
    # instructions
    "EXT1": lambda c: P2 + b"\x82\x01" + STOP,
    "EXT2": lambda c: P2 + b"\x83\x01\x01" + STOP,
    "EXT4": lambda c: P2 + b"\x84\x01\x01\x00\x00" + STOP,
    "INST": lambda c: P2 + MARK + text(c) + b"iposix\nsystem\n" + STOP,
    "OBJ": lambda c: P2 + MARK + name("posix", "system") + text(c) + b"o" + STOP,
    "PERSID": lambda c: P2 + dictionary(w=b"Pstorage\n") + STOP,
    "NEXT_BUFFER": lambda c: b"\x80\x05" + dictionary(w=b"\x97") + STOP,
    "READONLY_BUFFER": lambda c: b"\x80\x05" + dictionary(w=b"\x97\x98") + STOP,
    "STACK_GLOBAL": lambda c: (
        P4 + text("posix") + text("system") + b"\x93" + text(c) + b"\x85R" + STOP
    ),
    "STACK_GLOBAL, dotted": lambda c: (
        P4
        + dictionary(w=tensor(), x=text("torch.nn") + text("Module.forward.__globals__") + b"\x93")
        + STOP
    ),
    "STACK_GLOBAL, computed": lambda c: (
        P4
        + call(ENCODE, text("posix"), text("latin1"))
        + text("system")
        + b"\x93"
        + text(c)
        + b"\x85R"
        + STOP
    ),
    "NEWOBJ_EX": lambda c: (
        P4
        + LINEAR
        + EMPTY
        + dictionary(in_features=number(10**5), out_features=number(10**5))
        + b"\x92"
        + STOP
    ),
    "memo of 64 GB": lambda c: (
        P2 + dictionary(w=tensor() + b"r" + struct.pack("<I", 0xFFFFFFFF)) + STOP
    ),
    "memo never filled": lambda c: P2 + get(77) + STOP,
    "mark as a value": lambda c: P2 + MARK + put(1) + get(1) + b"t" + STOP,
    "forged frame": lambda c: (
        P4 + b"\x95" + struct.pack("<Q", 1 << 62) + dictionary(w=tensor()) + STOP
    ),
    "forged BINUNICODE8": lambda c: P4 + b"\x8d" + struct.pack("<Q", 1 << 62) + STOP,
    "forged BYTEARRAY8": lambda c: b"\x80\x05\x96" + struct.pack("<Q", 1 << 62) + STOP,
    "forged LONG4": lambda c: P2 + b"\x8b" + struct.pack("<i", 1 << 30) + STOP,
    "number of 255 bytes": lambda c: weights(number((1 << 2030) + 1)),
    "number of 255 bytes as a key": lambda c: (
        P2 + DICT + number((1 << 2030) + 1) + LIST + SETITEM + STOP
    ),
    "key that takes forever to hash": lambda c: P2 + DICT + _laughs(26) + NONE + SETITEM + STOP,
    "set that takes forever to hash": lambda c: weights(
        call(name("__builtin__", "set"), LIST + _laughs(26) + b"a")
    ),
    "a million lists": lambda c: P2 + MARK + b"]" * 1_100_000 + b"t" + STOP,
    # names
    "dotted attribute": lambda c: weights(name("torch.nn", "Module.forward.__globals__")),
    "name with a space": lambda c: weights(name("torch x", "nn.functional.relu")),
    "a lazy import of torch": lambda c: weights(name("torch", "_inductor")),
    # allowed functions, odd arguments
    "negative stride": lambda c: P2 + dictionary(w=tensor(stride=numbers(-1))) + STOP,
    "negative offset": lambda c: P2 + dictionary(w=tensor(offset=-1)) + STOP,
    "offset beyond": lambda c: P2 + dictionary(w=tensor(offset=1)) + STOP,
    "truth as a size": lambda c: P2 + dictionary(w=tensor(size=MARK + TRUE + TUPLE)) + STOP,
    "stride of 2 ** 39": lambda c: P2 + dictionary(w=tensor(stride=numbers(1 << 39))) + STOP,
    "65 dimensions": lambda c: (
        P2 + dictionary(w=tensor(size=numbers(*[1] * 65), stride=numbers(*[1] * 65))) + STOP
    ),
    "sizes as a set": lambda c: (
        P2
        + dictionary(w=tensor(size=call(name("__builtin__", "set"), LIST + number(3) + b"a")))
        + STOP
    ),
    "metadata of a tensor": lambda c: P2 + dictionary(w=tensor(meta=dictionary(conj=RELU))) + STOP,
    "storage as two types": lambda c: (
        P2
        + dictionary(a=tensor(), b=tensor(of=storage(12, "ByteStorage"), size=numbers(12)))
        + STOP
    ),
    "storage of -1": lambda c: P2 + dictionary(w=tensor(of=storage(-1), size=numbers(0))) + STOP,
    "storage that is missing": lambda c: (
        P2 + dictionary(w=tensor(of=storage(key=text("7")))) + STOP
    ),
    "storage of another folder": lambda c: (
        P2 + dictionary(w=tensor(of=storage(key=text("../version")))) + STOP
    ),
    "storage of a class": lambda c: (
        P2
        + dictionary(
            w=tensor(
                of=MARK
                + text("storage")
                + LINEAR
                + text("0")
                + text("cpu")
                + number(3)
                + TUPLE
                + PERSID
            )
        )
        + STOP
    ),
    "a thousand views of everything": lambda c: (
        P2
        + dictionary(
            **{
                f"w{i}": tensor(
                    of=storage() + put(1) if i == 0 else get(1),
                    size=numbers(1 << 20),
                    stride=numbers(0),
                )
                for i in range(40)
            }
        )
        + STOP
    ),
    "parameter with data": lambda c: (
        P2
        + dictionary(
            w=call(
                name("torch._utils", "_rebuild_parameter_with_state"),
                tensor(),
                TRUE,
                HOOKS,
                dictionary(data=RELU),
            )
        )
        + STOP
    ),
    "parameter of a module": lambda c: (
        P2
        + dictionary(w=call(name("torch._utils", "_rebuild_parameter"), module(), TRUE, HOOKS))
        + STOP
    ),
    "tensor as another class": lambda c: (
        P2
        + dictionary(
            w=call(
                name("torch._tensor", "_rebuild_from_type_v2"),
                V2,
                LINEAR,
                MARK + storage() + number(0) + numbers(3) + numbers(1) + FALSE + HOOKS + TUPLE,
                DICT,
            )
        )
        + STOP
    ),
    "tensor by another function": lambda c: (
        P2
        + dictionary(
            w=call(
                name("torch._tensor", "_rebuild_from_type_v2"),
                name("posix", "system"),
                name("torch", "Tensor"),
                MARK + text(c) + TUPLE,
                DICT,
            )
        )
        + STOP
    ),
    "wrapper subclass": lambda c: (
        P2
        + dictionary(
            w=call(
                name("torch._utils", "_rebuild_wrapper_subclass"),
                name("torch", "Tensor"),
                name("torch", "float32"),
                numbers(1 << 40),
                numbers(1),
                number(0),
                NONE,
                text("cpu"),
                FALSE,
            )
        )
        + STOP
    ),
    "codec that takes forever": lambda c: weights(call(ENCODE, text("a" * 50_000), text("idna"))),
    "codec that is a module": lambda c: weights(call(ENCODE, text("a"), text("antigravity"))),
    "device of a megabyte": lambda c: (
        P2 + dictionary(w=tensor(), x=call(name("torch", "device"), text("x" * 1_000_000))) + STOP
    ),
    "numpy type with forged flags": lambda c: weights(_numpy_scalar(F8 + _dtype_state(63))),
    "numpy type of objects": lambda c: weights(_numpy_scalar(call(DTYPE, text("O8"), FALSE, TRUE))),
    "numpy number from a call": lambda c: weights(_numpy_scalar(F8, system(c))),
    "getattr of torch's functions": lambda c: weights(
        call(
            name("__builtin__", "getattr"),
            name("torch._C", "_VariableFunctionsClass"),
            text("from_file"),
        )
    ),
    "partial of os.system": lambda c: (
        P2
        + dictionary(
            w=tensor(),
            x=call(name("functools", "partial"), RELU)
            + MARK
            + name("posix", "system")
            + MARK
            + text(c)
            + TUPLE
            + DICT
            + NONE
            + TUPLE
            + BUILD,
        )
        + STOP
    ),
    "compiled, with os.system": lambda c: (
        P2 + call(name("torch._dynamo.eval_frame", "OptimizedModule"), module(), system(c)) + STOP
    ),
    "compiled, of no module": lambda c: (
        P2 + call(name("torch._dynamo.eval_frame", "OptimizedModule"), RELU, NONE) + STOP
    ),
    "dictionary from a dictionary": lambda c: (
        P2
        + module(
            _modules=call(
                name("collections", "OrderedDict"), DICT + text("forward") + module() + SETITEM
            )
        )
        + STOP
    ),
}

HARMLESS_STREAMS: dict[str, Callable[[str], bytes]] = {
    "a second pickle": lambda c: P2 + dictionary(w=tensor()) + STOP + P2 + system(c) + STOP,
    "a pickle as text": lambda c: weights(text((P2 + system(c) + STOP).decode("latin1"))),
    "a pickle as bytes": lambda c: weights(
        call(ENCODE, text((P2 + system(c) + STOP).decode("latin1")), text("latin1"))
    ),
    "thirteen million paths": lambda c: P2 + _shared_dictionaries(60, 4) + STOP,
    "protocol 4": lambda c: P4 + b"\x95" + struct.pack("<Q", 40) + dictionary(w=tensor()) + STOP,
    "beside an object of unknown class": lambda c: weights(
        name("no_such_package", "Config") + EMPTY + NEWOBJ + dictionary(lr=number(1)) + BUILD
    ),
    "unknown function called": lambda c: weights(call(name("no_such_package", "rebuild"), text(c))),
    "look-alike module": lambda c: (
        P4
        + dictionary(
            w=tensor(),
            x=text("t\u043erch.nn.modules.linear")
            + text("Identity")
            + b"\x93"
            + EMPTY
            + NEWOBJ
            + dictionary(**FIRST)
            + BUILD,
        )
        + STOP
    ),
    "getattr of a module": lambda c: weights(
        call(name("__builtin__", "getattr"), LINEAR, text("forward"))
    ),
    "partial of a huge module": lambda c: (
        P2
        + dictionary(
            w=tensor(),
            x=call(name("functools", "partial"), LINEAR)
            + MARK
            + LINEAR
            + numbers(30_000, 30_000)
            + DICT
            + NONE
            + TUPLE
            + BUILD,
        )
        + STOP
    ),
}
"""Opened: what they hold beside weights stays what it is, unbuilt and unread."""
