"""From a module with choices to the plain network of a decision: each choice makes place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any

from torch import nn

from gradnas.choice import Choice
from gradnas.modules.inplace import own_output
from gradnas.modules.skip import Skip, keeps_first_cache
from gradnas.modules.written_in_place import PASSES_ON, may_give_its_input, may_write_in_place
from gradnas.spaces.fast_path import back_as_it_was
from gradnas.spaces.hooks import hand_over, has_hooks

# What every module has; the rest of its attributes are its author's.
_OF_TORCH = frozenset(vars(nn.Module()))


def with_chosen(module: nn.Module, decision: Mapping[str, str]) -> nn.Module:
    """`module` with every Choice inside (or itself) replaced by what was decided.

    In every place where there is one: a choice may lie in several, also in plain lists, tuples and
    dictionaries of a module.

    Where something is changed in place behind a choice that gives its input on as it is, a copy is
    made there, as the mixture is one: a padding by nothing, which torch makes a copy of, or a hook.
    Where no pass has told, it is made if the code may change something in place.

    Raises:
        ValueError: a choice without a decision, or with one that it does not offer.
    """
    replacing = _Replacing(module, decision)
    network = replacing(module)
    back_as_it_was(network)

    def inside(old: nn.Module, new: nn.Module) -> nn.Module:
        del old
        back_as_it_was(new)
        return new

    put_everywhere(network, replacing, inside)
    if replacing.is_without_cache:
        _switch_cache_off(network)
    return network


def put_everywhere(
    root: nn.Module,
    replacing: Callable[[nn.Module], nn.Module],
    goes_on: Callable[[nn.Module, nn.Module], nn.Module],
) -> None:
    """Put other modules in the places of some, wherever these lie inside `root`.

    Args:
        replacing: a module -> what takes its place; itself, where it stays.
        goes_on: the two -> the one inside which the others are looked for.
    """
    todo = [root]
    seen: set[nn.Module] = set()

    def replaced(child: nn.Module) -> nn.Module:
        other = replacing(child)
        todo.append(goes_on(child, other))
        return other

    while todo:
        parent = todo.pop()
        if parent in seen:
            continue
        seen.add(parent)
        # Not by `named_children`, which leaves out what it has seen before.
        for name, child in parent._modules.items():
            if child is not None:
                parent._modules[name] = replaced(child)
        own = vars(parent)
        for name in own.keys() - _OF_TORCH:
            own[name] = _with_modules(own[name], replaced)


def modules_beside(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Modules that lie in plain attributes, where torch does not find them, with the attribute."""
    own = vars(module)
    for name in own.keys() - _OF_TORCH:
        found: list[nn.Module] = []

        def noted(child: nn.Module, found: list[nn.Module] = found) -> nn.Module:
            found.append(child)
            return child

        _with_modules(own[name], noted)
        for child in found:
            yield name, child


class _Replacing:
    """Choice -> what takes its place; any other module -> itself."""

    def __init__(self, net: nn.Module, decision: Mapping[str, str]) -> None:
        self._decision = decision
        self._done: dict[nn.Module, nn.Module] = {}  # one choice, one module, in all its places
        self._parents: dict[nn.Module, list[nn.Module]] = {}
        for parent in net.modules():
            for child in parent._modules.values():
                if child is not None:
                    self._parents.setdefault(child, []).append(parent)
        self._net = net
        self.is_without_cache = False

    def __call__(self, module: nn.Module) -> nn.Module:
        if not isinstance(module, Choice):
            return module
        if module not in self._done:
            self._done[module] = self._taking_place_of(module)
        return self._done[module]

    def _taking_place_of(self, choice: Choice) -> nn.Module:
        chain = [choice]
        name = self._decided(choice)
        chosen = choice.operations[name]
        while isinstance(chosen, Choice):  # the chosen operation may itself be a choice
            chain.append(chosen)
            name = self._decided(chosen)
            chosen = chosen.operations[name]
        must_copy = any(self._is_changed_later(one) for one in chain)
        if isinstance(chosen, Skip):
            place = _plain_skip(chain[-1], name, must_copy)
            self.is_without_cache |= any(map(keeps_first_cache, chain[-1].operations.values()))
            if has_hooks(chosen):
                hand_over(chosen, place)
        else:
            place = _copying(chain[-1], name) if must_copy else chosen
        if any(has_hooks(one) for one in chain):
            if place is chosen:
                self._check_is_here_alone([*chain, chosen])
            for one in reversed(chain):
                hand_over(one, place)
        return place

    def _check_is_here_alone(self, chain: Sequence[nn.Module]) -> None:
        """ValueError where what gets the hooks of the first would run them elsewhere too."""
        choice = chain[0]
        assert isinstance(choice, Choice)
        for around, inner in pairwise(chain):
            assert isinstance(around, Choice)
            for parent in self._parents.get(inner, ()):
                if parent is not around.operations:
                    raise ValueError(
                        f"Choice {choice.name!r} has hooks, and the operation that was chosen lies "
                        "in another place too, where they would run as well: put the choice into a "
                        "module and register them there"
                    )

    def _decided(self, choice: Choice) -> str:
        if choice.name not in self._decision:
            raise ValueError(
                f"the decision says nothing about the choice {choice.name!r}; "
                f"it has {sorted(self._decision)}"
            )
        chosen = self._decision[choice.name]
        if chosen not in choice.names:
            raise ValueError(
                f"the choice {choice.name!r} has no operation {chosen!r}, only {list(choice.names)}"
            )
        return chosen

    def _is_changed_later(self, choice: Choice) -> bool:
        """Whether its input or output is changed in place after it; where unknown, whether it may.

        It is not known where the module has never run under a search, as after reading a decision.
        """
        if choice.changed_later is None:
            return self._may_write
        return choice.changed_later

    @cached_property
    def _may_write(self) -> bool:
        return may_write_in_place(self._net, (Choice, Skip))


def _plain_skip(choice: Choice, name: str, must_copy: bool) -> nn.Module:
    """What does in a derived network as a `Skip` does among the operations of a choice.

    With the settings that the operations beside it agree in: modules around it may read them.
    """
    skip = choice.operations[name]
    assert isinstance(skip, Skip)
    place = skip.plain(f"Choice {choice.name!r}: operation {name!r}", must_copy)
    beside = [one for one in choice.operations.values() if not isinstance(one, Skip)]
    for setting in plain_settings_of(beside[0]):
        if not hasattr(place, setting) and hasattr(choice, setting):
            setattr(place, setting, getattr(choice, setting))
    return place


def _switch_cache_off(network: nn.Module) -> None:
    """Hugging Face's models count the tokens of a cache by their first attention: it is gone."""
    for module in network.modules():
        for attribute in ("config", "generation_config"):
            settings: Any = getattr(module, attribute, None)
            if hasattr(settings, "use_cache"):
                settings.use_cache = False


def plain_settings_of(module: nn.Module) -> list[str]:
    """The names of its own attributes that are numbers, texts or switches."""
    names = []
    for name in vars(module).keys() - _OF_TORCH:
        if not name.startswith("_") and isinstance(vars(module)[name], (bool, int, float, str)):
            names.append(name)
    return sorted(names)


def _copying(choice: Choice, name: str) -> nn.Module:
    """The operation, with a copy behind it where it gives its input on as it is."""
    operation = choice.operations[name]
    if choice.changed_later is None:  # no pass was seen: it may be given anything, and give it on
        if may_give_its_input(operation):
            operation.register_forward_hook(own_output, with_kwargs=True)
        return operation
    passes_on = isinstance(operation, PASSES_ON)
    for is_training in (True, False):
        passes_on = passes_on or choice.gives_input.get((name, is_training), False)
    if not passes_on:
        return operation
    if not choice.is_of_one_tensor:
        raise ValueError(
            f"Choice {choice.name!r}: operation {name!r} gives its input on as it is, and a later "
            "layer changes one of them in place: in the derived network that would change both. "
            "Write the later layer without changes in place (inplace=False)"
        )
    if operation.state_dict():  # whose names stay as they are
        operation.register_forward_hook(own_output, with_kwargs=True)
        return operation
    copy = nn.ConstantPad1d(0, 0.0)
    is_nothing = type(operation) is nn.Identity and not has_hooks(operation)
    return copy if is_nothing else nn.Sequential(operation, copy)


def _with_modules(value: Any, replaced: Callable[[nn.Module], nn.Module]) -> Any:
    """A value with its modules replaced, in lists and dictionaries in place."""
    if isinstance(value, nn.Module):
        return replaced(value)
    if isinstance(value, list):
        for position, item in enumerate(value):
            value[position] = _with_modules(item, replaced)
    elif isinstance(value, dict):
        for key, item in value.items():
            value[key] = _with_modules(item, replaced)
    elif isinstance(value, tuple):
        items = [_with_modules(item, replaced) for item in value]
        if any(new is not old for new, old in zip(items, value, strict=True)):
            is_named_tuple = hasattr(value, "_fields")
            return type(value)(*items) if is_named_tuple else type(value)(items)
    return value
