"""The user's own module as a search space: every `Choice` in it is open."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from gradnas.architectures.choices import Choices
from gradnas.choice import Choice
from gradnas.config import JsonObject, did_you_mean, to_json
from gradnas.derivation import Picks, best_operation
from gradnas.latency import Costs, CostView
from gradnas.latency.registered import registered
from gradnas.modules.draws import Active, Additions, Draw, using
from gradnas.modules.inplace import watching
from gradnas.modules.skip import Skip
from gradnas.relaxations import Relaxation, Softmax
from gradnas.spaces.base import D, Supernet, Weights
from gradnas.spaces.chosen import with_chosen
from gradnas.spaces.copied import copied
from gradnas.spaces.failing import note_place
from gradnas.spaces.fast_path import keep_off_fast_path
from gradnas.spaces.module_choices import (
    choices_in,
    outermost_choices,
    places_in,
    reached_choices,
)

MOST_PLACES = 4  # that a note names


class OpenModule(Supernet[D]):
    """A module with `Choice`s in it. `alphas[name]` is `(O,)`; choices of one name share one alpha.

    What a decision is, and the network it stands for, say the classes made from this one.

    Args:
        net: the module; it is used as it is, not copied.
        seed: of the alphas' start, 1e-3 times a standard normal.

    Raises:
        ValueError: no `Choice` inside, or two of one name with different operations.
    """

    def __init__(self, net: nn.Module, seed: int = 0) -> None:
        super().__init__()
        self.net = net
        self.names = choices_in(net)
        keep_off_fast_path(net)
        device, dtype = _alphas_like(net)
        generator = torch.Generator().manual_seed(seed)
        tables: dict[str, nn.Parameter] = {}
        for name, operations in self.names.items():
            alpha_O = 1e-3 * torch.randn(len(operations), generator=generator, device="cpu")
            tables[name] = nn.Parameter(alpha_O.to(device, dtype))
        self.alphas = Alphas(tables)  # which sorts them by name
        for module in net.modules():
            if isinstance(module, Choice):
                module.belongs_to(self)

    def forward(self, *inputs: Any, draw: Draw | None = None, **named: Any) -> Any:
        if draw is None:
            draw = self.dense_draw()
        elif not isinstance(draw, Draw):
            raise ValueError(
                f"draw= says what the choices mix and takes a gradnas.Draw, not a "
                f"{type(draw).__name__}; an argument of the network's own of that name is given "
                "by its position"
            )
        try:
            with using(draw), watching():
                return self.net(*inputs, **named)
        except Exception as error:
            note_place(error, self.net)
            raise

    def run_method(
        self, name: str, draw: Draw, inputs: Sequence[Any], named: Mapping[str, Any]
    ) -> Any:
        method = method_of(self.net, name)
        try:
            with using(draw), watching():
                return method(*inputs, **named)
        except Exception as error:
            note_place(error, self.net)
            raise

    def notes(self) -> list[str]:
        notes = []
        for name, places in places_in(self.net).items():
            if len(places) > 1:
                shown = ", ".join(places[:MOST_PLACES])
                more = len(places) - MOST_PLACES
                if more > 0:
                    shown += f" and {more} more"
                notes.append(
                    f"{name}: one decision for {len(places)} places ({shown}), which have this "
                    "name; without name= each decides for itself"
                )
        return notes

    def weights_of_operations(self) -> dict[str, list[nn.Parameter]]:
        found = {}
        for path, module in self.net.named_modules():
            if not isinstance(module, Choice):
                continue
            for name, operation in module.operations.items():
                inside = {
                    id(p)
                    for inner in operation.modules()
                    if isinstance(inner, Choice)
                    for p in inner.parameters()
                }
                own = [p for p in operation.parameters() if id(p) not in inside]
                if own:
                    found[f"{path}: operation {name!r}"] = own
        return found

    def cost_view(self) -> CostView:
        return CostView(self.net)

    def no_costs(self) -> Costs:
        return replace(super().no_costs(), inside=registered(self.net, {}).inside)

    @property
    def searched(self) -> nn.Module:
        return self.net

    weights_by_operation = True

    def operation_names(self) -> dict[str, tuple[str, ...]]:
        return dict(self.names)

    def weightless(self) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for module in self.net.modules():
            if not isinstance(module, Choice) or module.name in found:
                continue
            assert module.name is not None
            free = [_has_no_weights(own) for own in module.operations.values()]
            free_O = torch.tensor(free, device="cpu")
            if free_O.any() and not free_O.all():
                found[module.name] = free_O
        return found


class ModuleSupernet(OpenModule[Choices]):
    """The user's module; a decision names the operation of every choice that it reaches."""

    def space_record(self) -> JsonObject:
        """As `gradnas.tasks.your_task.space.TaskSpace`, a class of a higher layer, is written."""
        names = {name: list(operations) for name, operations in self.names.items()}
        return {"type": "TaskSpace", "choices": names, "places": to_json(places_in(self.net))}

    def __init__(self, net: nn.Module, seed: int = 0) -> None:
        super().__init__(net, seed)
        # "fresh" means the values the module had when the search began: whatever initialisation the
        # user wrote, and for any kind of layer. Kept on the CPU.
        initial: dict[str, Any] = {}
        for name, tensor in net.state_dict().items():
            if isinstance(tensor, Tensor):  # and not the extra state of a module
                initial[name] = tensor.detach().to("cpu", copy=True)
            else:
                initial[name] = copy.deepcopy(tensor)
        self.initial = initial

    def add(self, additions: Additions, seed: int) -> None:
        """An auxiliary skip passes on the first input of every choice."""
        super().add(replace(additions, auxiliary_skip=False), seed)

    def decide(self, relaxation: Relaxation = Softmax()) -> Choices:
        """The best operation of every choice that can still be reached: `{"body": "conv3"}`."""
        best: dict[str, str] = {}
        for name, alpha in self.alphas.items():
            index = best_operation(relaxation.probabilities(alpha.detach().double()))
            best[name] = self.names[name][index]
        reached = reached_choices(self.net, best)
        return Choices({name: best[name] for name in best if name in reached})

    def decision(self, picks: Picks) -> Choices:
        """The choices with these operations, given by their columns."""
        chosen = {}
        for name, operations in self.names.items():
            if name in picks:
                chosen[name] = operations[picks[name]]
        return Choices(chosen)

    def random_decision(self, generator: torch.Generator) -> Choices:
        """Operations drawn uniformly, without those of choices that are then not reached."""
        chosen = {}
        for name, operations in self.names.items():
            column = int(torch.randint(len(operations), (), generator=generator, device="cpu"))
            chosen[name] = operations[column]
        reached = reached_choices(self.net, chosen)
        return Choices({name: chosen[name] for name in chosen if name in reached})

    def one_hot_draw(self, decision: Mapping[str, str], /) -> Draw:
        """Mixing weight 1 on what was decided.

        Choices that cannot be reached have weight 0 everywhere.
        """
        rows = self.columns_of(decision)
        indices = {name: [*columns] or [None] for name, (columns,) in rows.items()}
        return Draw.one_hot(indices, {name: alpha.detach() for name, alpha in self.alphas.items()})

    def columns_of(self, decision: Mapping[str, str], /) -> dict[str, Active]:
        """Without the tensors of a draw."""
        found: dict[str, Active] = {}
        for name, operation in decision.items():
            found[name] = ((self.names[name].index(operation),),)
        for name in self.names:
            found.setdefault(name, ((),))
        return found

    def skip_count(self, decision: Mapping[str, str]) -> int:
        """Choices that were decided for an `nn.Identity` or a `Skip`."""
        is_skip: dict[str, bool] = {}  # by name: places of one name are one decision
        for module in self.net.modules():
            if isinstance(module, Choice) and module.name in decision:
                chosen = module.operations[decision[module.name]]
                is_skip[module.name] = isinstance(chosen, (nn.Identity, Skip))
        return sum(is_skip.values())

    def idle_choices(self) -> list[str]:
        """Those of no place that has run, but for choices inside operations of others."""
        called: set[str] = set()
        outermost = outermost_choices(self.net)
        for choice in outermost:
            assert choice.name is not None
            if choice.gives_input:  # known of each operation that has run
                called.add(choice.name)
        if not called:
            return []  # no pass was made, or a compiler made them and tells nothing
        idle = {choice.name for choice in outermost if choice.name is not None} - called
        return sorted(idle)

    def derived(self, decision: Mapping[str, str], weights: Weights = "keep") -> nn.Module:
        """A copy of the module in which each `Choice` is replaced by the chosen operation."""
        network = copied(self.net)
        if weights == "fresh":
            assert self.initial is not None
            network.load_state_dict(self.initial)
        return with_chosen(network, decision)


def _has_no_weights(module: nn.Module) -> bool:
    return next(module.parameters(), None) is None


class Alphas(nn.ParameterDict):
    """Alphas by name, whatever the name: also `keys` or `half`, which a module has itself."""

    def __getitem__(self, key: str) -> Any:
        return self._parameters[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self._keys[key] = None
        self._parameters[key] = value


def method_of(net: nn.Module, name: str) -> Any:
    """A method of a module, or of a part of it, by its name with dots.

    Raises:
        ValueError: there is none of this name (with the nearest).
    """
    owner: Any = net
    *path, last = name.split(".")
    for part in path:
        owner = _attribute(owner, part, name)
    method = _attribute(owner, last, name)
    if not callable(method):
        what = type(method).__name__
        raise ValueError(f"{type(net).__name__} has {name!r}, but that is a {what} and no method")
    return method


def _attribute(owner: Any, name: str, path: str) -> Any:
    if not hasattr(owner, name):
        methods = [key for key in dir(type(owner)) if not key.startswith("_")]
        raise ValueError(
            f"there is no method {path!r}: {type(owner).__name__} has no attribute "
            f"{name!r}{did_you_mean(name, methods)}"
        )
    return getattr(owner, name)


def _alphas_like(net: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Where the first weights lie; float32, or wider where the weights are.

    In 16 bits an alpha of 0.5 has a neighbour at 0.504, and a step of Adam (3e-4) leads nowhere.
    """
    device = None
    dtype = torch.float32
    for parameter in net.parameters():
        if parameter.is_floating_point():
            device = device or parameter.device
            dtype = torch.promote_types(dtype, parameter.dtype)
    return device or torch.device("cpu"), dtype
