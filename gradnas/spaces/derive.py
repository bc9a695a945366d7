"""The way back from a file of choices: a module of one's own becomes its plain network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from gradnas.architectures.choices import Choices
from gradnas.choice import Choice
from gradnas.config import did_you_mean
from gradnas.spaces.base import Supernet, Weights
from gradnas.spaces.chosen import with_chosen
from gradnas.spaces.copied import copied
from gradnas.spaces.module_choices import choices_in
from gradnas.spaces.your_module import OpenModule


def derive(
    model: nn.Module, choices: str | Path | Mapping[str, str], weights: Weights = "keep"
) -> nn.Module:
    """A copy of a module in which each `Choice` is replaced by the chosen operation.

    Args:
        model: a module with the choices that were searched, as a rule freshly made; it stays as it
            is.
        choices: the file that `SearchResult.save` wrote, or a mapping from choices to operations.
        weights: `"keep"`: those that the model has now. `"fresh"`: those that it had before a
            search trained it; of a freshly made model, its own.

    Raises:
        ValueError: a choice or an operation that the model does not have (with the nearest); a
            choice that is reached and not decided; a file that cannot be read or holds something
            else; a copy of a searched module, whose fresh weights nobody knows.
    """
    if weights not in ("keep", "fresh"):
        raise ValueError(f"weights must be 'keep' or 'fresh', not {weights!r}")
    net = model
    if isinstance(model, Supernet):
        if not isinstance(model, OpenModule):
            raise ValueError(
                f"derive takes a module with choices, not a {type(model).__name__}: the networks "
                "of a published space come from space.network(genotype)"
            )
        net = model.net
    decision = choices if isinstance(choices, Mapping) else _read(choices)

    fresh = _fresh_weights(net) if weights == "fresh" else None
    network = copied(net)
    _check(decision, choices_in(network), type(net).__name__)
    if fresh is not None:
        network.load_state_dict(fresh)
    return with_chosen(network, decision)


def _read(path: str | Path) -> Choices:
    try:
        return Choices.load(path)
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror or error}") from error


def _check(decision: Mapping[str, str], names: Mapping[str, tuple[str, ...]], model: str) -> None:
    for name, operation in decision.items():
        if name not in names:
            raise ValueError(f"{model} has no choice {name!r}{did_you_mean(name, names)}")
        if operation not in names[name]:
            hint = did_you_mean(operation, names[name])
            raise ValueError(f"the choice {name!r} has no operation {operation!r}{hint}")


def _fresh_weights(net: nn.Module) -> dict[str, Tensor] | None:
    """The weights of before a search; None where none has begun, so that they are still there."""
    for module in net.modules():
        if not isinstance(module, Choice) or not module.was_searched:
            continue
        owner = module.owner
        if isinstance(owner, OpenModule) and owner.net is net and owner.initial is not None:
            return owner.initial
        raise ValueError(
            "this module has been searched, and is a copy or its search is gone: nothing knows its "
            "fresh weights. Give a freshly made module, or weights='keep'"
        )
    return None
