"""The choices in a module of one's own: their names and places, and which of them run."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from gradnas.choice import Choice
from gradnas.spaces.chosen import modules_beside
from gradnas.spaces.hooks import refuse_what_is_lost


def choices_in(net: nn.Module) -> dict[str, tuple[str, ...]]:
    """Name -> operations of every choice. One without a name is given that of its place."""
    names: dict[str, tuple[str, ...]] = {}
    for path, module in net.named_modules():
        if not isinstance(module, Choice):
            continue
        if module.name is None:
            module.name = _uncompiled(path).replace(".", "/") or "choice"
        refuse_what_is_lost(module)
        first = names.setdefault(module.name, module.names)
        if first != module.names:
            raise ValueError(
                f"two Choices are named {module.name!r} but offer different operations: "
                f"{list(first)} and {list(module.names)}; give one of them another name"
            )
    if not names:
        raise ValueError(
            f"{type(net).__name__} holds no gradnas.Choice: declare one where a layer is to be "
            "chosen, as an attribute of the module (choices in plain Python lists are not found; "
            "use nn.ModuleList)"
        )
    _check_all_are_registered(net)
    _check_attributes(net)
    return names


def places_in(net: nn.Module) -> dict[str, tuple[str, ...]]:
    """Name -> the paths of the choices of that name, with dots; names are there already."""
    places: dict[str, list[str]] = {}
    for path, module in net.named_modules():
        if isinstance(module, Choice):
            assert module.name is not None
            places.setdefault(module.name, []).append(_uncompiled(path))
    return {name: tuple(paths) for name, paths in places.items()}


def _uncompiled(path: str) -> str:
    """The path of a module as it was before `torch.compile` put a module of its own around some."""
    return ".".join(part for part in path.split(".") if part != "_orig_mod")


def _check_attributes(net: nn.Module) -> None:
    """ValueError for a choice as an attribute that every module has for something else."""
    for path, module in net.named_modules():
        if isinstance(module, nn.ModuleDict):  # whose entries are not looked up as attributes
            continue
        for attribute, child in module._modules.items():
            if isinstance(child, Choice) and getattr(module, attribute, None) is not child:
                where = f"{path}.{attribute}" if path else attribute
                raise ValueError(
                    f"the Choice at {where!r} is hidden by what {type(module).__name__} has under "
                    f"that name itself, {attribute!r}: give the attribute another name"
                )


def _check_all_are_registered(net: nn.Module) -> None:
    """ValueError for a choice in a plain list beside those that torch finds."""
    registered = set(net.modules())
    for path, module in net.named_modules():
        for attribute, beside in modules_beside(module):
            for inner in beside.modules():
                if isinstance(inner, Choice) and inner not in registered:
                    where = f"{path}.{attribute}" if path else attribute
                    raise ValueError(
                        f"a Choice lies in {where!r} of {type(net).__name__}, a plain Python "
                        "attribute or list, in which torch finds no modules: its weights would "
                        "not learn. Use nn.ModuleList or nn.ModuleDict"
                    )


def outermost_choices(module: nn.Module) -> list[Choice]:
    """The choices that lie inside no operation of another."""
    if isinstance(module, Choice):
        return [module]
    found = []
    for child in module.children():
        found += outermost_choices(child)
    return found


def reached_choices(net: nn.Module, best: Mapping[str, str]) -> set[str]:
    """The names of the choices that run when every choice takes its best operation.

    A choice inside an operation that was not chosen never runs: it decides nothing.
    """
    names: set[str] = set()

    def visit(module: nn.Module) -> None:
        if isinstance(module, Choice):
            assert module.name is not None
            names.add(module.name)
            visit(module.operations[best[module.name]])
        else:
            for child in module._modules.values():
                if child is not None:
                    visit(child)

    visit(net)
    return names
