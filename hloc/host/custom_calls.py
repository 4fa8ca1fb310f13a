"""Functions that programs call by name: the one table of what `register_custom_call` enters.

The evaluator and every back end look targets up here before they look among those they know themselves.
"""

from __future__ import annotations

import ctypes
from typing import Any

from hloc.errors import HloError
from hloc.ir.attributes import Raw
from hloc.ir.instruction import Instruction
from hloc.records import NamedTuple

_KINDS = ("python", "c")


class CustomFunction(NamedTuple):
    """What stands behind a target: a Python `function`, or a C function at `address`.

    `config` says whether a Python function takes the call's backend_config as a keyword argument.
    """

    target: str
    kind: str
    function: Any
    address: int
    config: bool


_TABLE: dict[str, CustomFunction] = {}


def register_custom_call(target: str, function: Any, *, kind: str = "python", config: bool = False) -> None:
    """Says what the custom calls of a target run, in this process, from now on.

    A "python" function is called as `function(*operands)` and gives the result: an array, or a tuple of them
    as deep as the result's shape, of exactly the result's types and sizes (what NumPy makes an array of will
    do). Operands are read-only NumPy arrays, valid during the call; tuples of them where an operand is a
    tuple. With `config=True` it also gets the call's backend_config text as the keyword argument `config`.
    An exception ends the run, on all devices, with an HloError whose cause it is.

    A "c" function is a ctypes function, an address or a PyCapsule of

        void f(void **outs, const void **ins, const char *config, size_t config_size, int32_t *status)

    `outs` and `ins` point to the arrays of the result and of the operands, tuples depth first, each dense in
    the layout of the call's shape and of its `operand_layout_constraints` (row-major where there is none),
    one byte an element for types below a byte. Outs overlap no ins. `status` is 0; anything else ends the run
    with an HloError. The function may be called from several threads at once.

    Calls that are equal may be joined, and those that nobody uses left out, unless they say
    `custom_call_has_side_effect=true`. A program keeps the function that it was loaded with. ValueError for
    another kind, TypeError for a function that is not of its kind.
    """
    if kind not in _KINDS:
        raise ValueError(f'kind is "{kind}"; it may be {" or ".join(_KINDS)}')
    address = 0
    if kind == "c":
        address = _address_of(function)
    elif not callable(function):
        raise TypeError(f"a function for {target} is expected, got a {type(function).__name__}")
    _TABLE[target] = CustomFunction(target, kind, function, address, config)


def _address_of(function: Any) -> int:
    """Where the code of a C function lies."""
    if isinstance(function, int) and not isinstance(function, bool):
        address = function
    elif type(function).__name__ == "PyCapsule":
        address = capsule_address(function)
    elif isinstance(function, ctypes._CFuncPtr):
        address = ctypes.cast(function, ctypes.c_void_p).value
    else:
        got = type(function).__name__
        raise TypeError(f"a ctypes function, an address or a capsule is expected, got a {got}")
    if not address:
        raise TypeError("the address of the function is null")
    return address


def capsule_address(capsule: object) -> int:
    """The pointer that a PyCapsule holds."""
    api = ctypes.pythonapi
    name_of, pointer_of = api.PyCapsule_GetName, api.PyCapsule_GetPointer
    name_of.restype, name_of.argtypes = ctypes.c_char_p, [ctypes.py_object]
    pointer_of.restype, pointer_of.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return pointer_of(capsule, name_of(capsule))


def registered(target: str) -> CustomFunction | None:
    """The function of a target, if one was registered."""
    return _TABLE.get(target)


def registered_targets() -> list[str]:
    """All targets that were registered, in that order."""
    return list(_TABLE)


def call_python(custom: CustomFunction, operands: list[Any], config: str) -> Any:
    """What a Python function gives. An exception becomes an HloError that names the target."""
    try:
        return custom.function(*operands, **({"config": config} if custom.config else {}))
    except Exception as error:
        message = f'the function of custom call "{custom.target}" raised {type(error).__name__}: {error}'
        raise HloError(message) from error


def config_text(instruction: Instruction) -> str:
    """The text of a custom call's backend_config: what a string says, a dictionary with its braces."""
    config = instruction.annotations.get("backend_config")
    return config.text if isinstance(config, Raw) else config or ""
