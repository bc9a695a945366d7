"""Sums of what several operations give: of tensors, or of equal nestings of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from gradnas.modules.nesting import described, equal, is_mixed, mapped


def mixture(outputs: list[Any], weights: Sequence[Any], label: str, names: list[str]) -> Any:
    """The sum of equal nestings of tensors, tensor by tensor; what is no number must agree.

    Args:
        label, names: what an error calls the place, and the operations that gave the outputs.
    """
    if all(is_mixed(output) for output in outputs):  # as nearly always
        _check_shapes(outputs, label, names)
        return _weighted_tensors(outputs, weights)
    num_tensors = 0

    def summed(parts: Sequence[Any], where: str) -> Any:
        nonlocal num_tensors
        num_tensors += isinstance(parts[0], Tensor)
        if all(is_mixed(part) for part in parts):
            _check_shapes(parts, f"{label}{where}", names)
            return _weighted_tensors(parts, weights)
        check_agreement(parts, f"{label}{where}", names)
        return parts[0]

    mixed = mapped(summed, outputs)
    if num_tensors == 0:
        _refuse(outputs, label, names)
    return mixed


def _weighted_tensors(outputs: Sequence[Tensor], weights: Sequence[Any]) -> Tensor:
    total = _weighted(outputs[0], weights[0])
    for output, weight in zip(outputs[1:], weights[1:], strict=True):
        total = total + _weighted(output, weight)
    return total


def _weighted(output: Tensor, weight: Any) -> Tensor:
    """Mixing weights may be wider than what they mix, and lie elsewhere: the output decides."""
    if isinstance(weight, Tensor) and weight.device != output.device:
        weight = weight.to(output.device)
    product = output * weight
    return product if product.dtype == output.dtype else product.to(output.dtype)


def _check_shapes(outputs: Sequence[Tensor], label: str, names: Sequence[str]) -> None:
    first = outputs[0]
    for name, output in zip(names, outputs, strict=True):
        if output.shape != first.shape:
            raise ValueError(
                f"{label}: operations {names[0]!r} and {name!r} give outputs that do not agree: "
                f"{described(first)} and {described(output)}"
            )


def check_agreement(parts: Sequence[Any], label: str, names: Sequence[str]) -> None:
    """ValueError where what cannot be mixed differs between operations."""
    first = parts[0]
    for name, part in zip(names, parts, strict=True):
        if equal(first, part):
            continue
        if type(part) is not type(first):
            _refuse(parts, label, names)
        raise ValueError(
            f"{label}: operations {names[0]!r} and {name!r} give outputs that do not agree: "
            f"{described(first)} and {described(part)}; only tensors of real numbers are mixed, "
            "everything else must be the same from every operation"
        )


def _refuse(outputs: Sequence[Any], label: str, names: Sequence[str]) -> None:
    given = []
    for name, output in zip(names, outputs, strict=True):
        given.append(f"{name}: {type(output).__name__}")
    raise ValueError(
        f"{label}: outputs must be tensors or equal nestings of tensors, got {', '.join(given)}"
    )
