"""Groups of the examples of a batch, so that one evaluation also tells its noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor

from gradnas.modules.inplace import tensors_of
from gradnas.modules.nesting import mapped

FAILURES = (  # of a user's loss, measure or module
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)

GROUPS = 16  # of a batch, at most
SMALLEST = 4  # examples in one


def measured_by_group(
    function: Callable[[Any, Any], float], outputs: Any, target: Any, size: int
) -> list[tuple[float, float]]:
    """The measure of every group of a batch, each with how many examples it counts for.

    Where the groups' values do not average to that of the whole batch (a sum, a ranking, outputs
    that do not belong to examples), the batch is one group.

    Args:
        function: `(outputs, target)` to a number.
        size: examples of the batch.
    """
    whole = function(outputs, target)
    groups = _groups(outputs, target)
    found = []
    try:
        for first, last in groups:
            part = function(some_rows(outputs, first, last), some_rows(target, first, last))
            found.append((part, size * (last - first) / groups[-1][1]))
    except FAILURES:  # it takes whole batches alone
        return [(whole, float(size))]
    if len(found) < 2:
        return [(whole, float(size))]
    mean = sum(value * weight for value, weight in found) / size
    if not math.isclose(mean, whole, rel_tol=1e-3, abs_tol=1e-4):
        return [(whole, float(size))]
    return found


def _groups(outputs: Any, target: Any) -> list[tuple[int, int]]:
    """First and last row of each; one where the tensors are not all of one length."""
    lengths = set()
    for tensor in tensors_of((outputs, target)):
        lengths.add(len(tensor) if tensor.dim() else -1)
    if len(lengths) != 1:
        return []
    (length,) = lengths
    number = min(GROUPS, length // SMALLEST)
    if number < 2:
        return []
    bounds = [length * k // number for k in range(number + 1)]
    return list(pairwise(bounds))


def some_rows(value: Any, first: int, last: int) -> Any:
    """Those from `first` up to `last` of every tensor in it, which may be fewer."""

    def some(leaves: Sequence[Any], where: str) -> Any:
        del where
        leaf = leaves[0]
        return leaf[first:last] if isinstance(leaf, Tensor) else leaf

    return mapped(some, [value])
