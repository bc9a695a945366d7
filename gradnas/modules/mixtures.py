"""Sums of what several operations give: of tensors, or of equal nestings of tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from torch import Tensor

from gradnas.modules.nesting import described, equal, is_mixed, mapped

Called = Callable[[], tuple[str, list[str]]]


def mixture(outputs: list[Any], weights: Sequence[Any], called: Called) -> Any:
    """The sum of equal nestings of tensors, tensor by tensor; what is no number must agree.

    Args:
        called: what an error calls the place, and the operations that gave the outputs.
    """
    if _are_alike(outputs):  # as nearly always
        return _weighted_tensors(outputs, weights)
    label, names = called()
    if all(is_mixed(output) for output in outputs):
        _refuse_shapes(outputs, label, names)
    num_tensors = 0

    def summed(parts: Sequence[Any], where: str) -> Any:
        nonlocal num_tensors
        num_tensors += isinstance(parts[0], Tensor)
        if all(is_mixed(part) for part in parts):
            if not _are_alike(parts):
                _refuse_shapes(parts, f"{label}{where}", names)
            return _weighted_tensors(parts, weights)
        check_agreement(parts, f"{label}{where}", names)
        return parts[0]

    mixed = mapped(summed, outputs)
    if num_tensors == 0:
        _refuse(outputs, label, names)
    return mixed


def _weighted_tensors(outputs: Sequence[Tensor], weights: Sequence[Any]) -> Tensor:
    total = None
    for output, weight in zip(outputs, weights, strict=True):
        # Mixing weights may be wider than what they mix, and lie elsewhere: the output decides.
        if isinstance(weight, Tensor) and weight.device != output.device:
            weight = weight.to(output.device)
        product = output * weight
        if product.dtype != output.dtype:
            product = product.to(output.dtype)
        total = product if total is None else total + product
    assert total is not None
    return total


def _are_alike(outputs: Sequence[Any]) -> bool:
    """Whether all are tensors that mixing weights apply to, of one shape."""
    first = outputs[0]
    if not is_mixed(first):
        return False
    shape = first.shape
    return all(is_mixed(output) and output.shape == shape for output in outputs[1:])


def _refuse_shapes(outputs: Sequence[Tensor], label: str, names: Sequence[str]) -> NoReturn:
    first = outputs[0]
    other = next(k for k, output in enumerate(outputs) if output.shape != first.shape)
    raise ValueError(
        f"{label}: operations {names[0]!r} and {names[other]!r} give outputs that do not agree: "
        f"{described(first)} and {described(outputs[other])}"
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
