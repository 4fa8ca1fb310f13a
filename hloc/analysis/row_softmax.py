"""The parts of a softmax along rows, of which more is known than of other exponentials and quotients.

    most = reduce(given, maximum)    power = exponential(given - broadcast(most))
    total = reduce(power, add)       weight = power / broadcast(total)

No power is above 1, and a total is at least 1, or NaN if there is a NaN or an infinity in its row.
"""

from __future__ import annotations

from collections.abc import Callable

from hloc.ir.instruction import Instruction


def _reduced(value: Instruction, folded: Instruction, operation: str) -> Instruction | None:
    """The reduce of `folded` by a known operation that a value has, row by row, the results of."""
    if value.opcode != "broadcast" or value.operands[0].opcode != "reduce":
        return None
    reduce = value.operands[0]
    kept = [d for d in range(len(folded.shape.dims)) if d not in reduce.get("dimensions")]
    if reduce.operands[0] is not folded or list(value.get("dimensions")) != kept or len(reduce.operands) != 2:
        return None
    reducer = reduce.called[0]
    is_known = reducer.root.opcode == operation and set(reducer.root.operands) == set(reducer.parameters)
    return reduce if is_known else None


def is_power(value: Instruction) -> bool:
    """Whether a value is a softmax's power: the exponential of what is never positive."""
    return _most(value) is not None


def _most(power: Instruction) -> Instruction | None:
    if power.opcode != "exponential" or power.operands[0].opcode != "subtract":
        return None
    given, most = power.operands[0].operands
    return _reduced(most, given, "maximum")


def is_weight(value: Instruction) -> bool:
    """Whether a value is a softmax's weight: its divisor is NaN, or from 1 to the length of a row."""
    if value.opcode != "divide" or not is_power(value.operands[0]):
        return False
    power, divisor = value.operands
    total = _reduced(divisor, power, "add")
    return total is not None and _is_zero(total.operands[1])


def _is_zero(value: Instruction) -> bool:
    return value.opcode == "constant" and value.attributes["literal"].scalar() == 0


def tells_nans_by_powers(most: Instruction) -> bool:
    """Whether a reduce is the `most` of softmaxes, whose powers go to totals and weights alone.

    A NaN in a row makes one of its powers NaN and so all its weights, whether `most` is NaN or not.
    """

    def is_power_of_weights(power: Instruction) -> bool:
        def is_own_weight(user: Instruction) -> bool:
            return is_weight(user) and user.operands[0] is power

        def is_total(user: Instruction) -> bool:
            return user.opcode == "reduce" and _all_users(user, lambda spread: _all_users(spread, is_own_weight))

        return _most(power) is most and _all_users(power, lambda user: is_own_weight(user) or is_total(user))

    return _all_users(most, lambda spread: _all_users(spread, lambda less: _all_users(less, is_power_of_weights)))


def _all_users(value: Instruction, is_fine: Callable[[Instruction], bool]) -> bool:
    return not value.is_root and bool(value.users) and all(map(is_fine, value.users))
