"""What a derived network keeps of the weights of a supernet's operation."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn


def copy_state(state: Mapping[str, Tensor], target: nn.Module) -> None:
    """Load `state`; what only the target has must be the affine part of its BatchNorms."""
    missing, surplus = target.load_state_dict(state, strict=False)
    assert not surplus, surplus
    norms = set()
    for name, module in target.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            norms.add(name)
    for key in missing:
        owner, _, _ = key.rpartition(".")
        assert owner in norms, missing
