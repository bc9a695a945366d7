"""`Choice` declares alternatives inside any module.

Legend: O operations.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from gradnas.modules.draws import Draw, OutsideSearch, current, using
from gradnas.modules.inplace import Inputs, share_memory, watch
from gradnas.modules.mixtures import mixture
from gradnas.modules.skip import Skip
from gradnas.modules.slots import held_by, holding, with_copied_buffers
from gradnas.probing import Probes, probed
from gradnas.randomness import random_state, set_random_state


class Owner(Protocol):
    """What a searched `Choice` belongs to."""

    def dense_draw(self) -> Draw:
        """The mixture of the alphas; raises `OutsideSearch` where a pass should have said."""
        ...


_MISSING = object()


class Choice(nn.Module):
    """Alternatives for one place of a network, declared where the layer is.

    During a search the output is `sum_k mix_k * operation_k(inputs)` over the active operations.
    Before a search (a quick look at the shapes) all operations have equal weight; after it, outside
    its losses, they are mixed by the alphas. Two choices of the same name share one alpha, so they
    make the same decision. Choices may nest. All arguments are passed on to the operations.

    Args:
        operations: name -> module; at least two. Outputs are tensors, or equal nestings of tuples,
            lists, dictionaries and dataclasses with tensors in them, and must agree in shape. What
            is no tensor of real numbers (None, texts, numbers, integer tensors) must be the same
            from every operation.
        name: the name of its alpha; by default the path of the module, with `/` for the dots.

    Raises:
        ValueError: fewer than two operations, a name that torch cannot register, outputs that
            differ in shape.
    """

    _owner: weakref.ref[Any] | None = None
    was_searched = False
    _searched_names: tuple[str, ...] | None = None

    def __init__(self, operations: Mapping[str, nn.Module], name: str | None = None) -> None:
        super().__init__()
        label = f"Choice {name!r}" if name is not None else "Choice"
        if not isinstance(operations, Mapping):
            raise ValueError(
                f"{label} takes a dictionary from names to modules, not a "
                f"{type(operations).__name__}"
            )
        if len(operations) < 2:
            raise ValueError(f"{label} needs at least two operations, got {len(operations)}")
        if name is not None and not _is_name(name):
            raise ValueError(f"the name of a Choice is a text without dots, not {name!r}")
        for key, module in operations.items():
            if not _is_name(key):
                raise ValueError(
                    f"{label}: an operation's name is a text without dots, not {key!r}"
                )
            if not isinstance(module, nn.Module):
                raise ValueError(
                    f"{label}: operation {key!r} is a {type(module).__name__}, not an nn.Module"
                )
        self.name = name
        self.operations = nn.ModuleDict()
        # Not by the dictionary's own way, which refuses names of its methods: `half`, `keys`.
        self.operations._modules.update(operations)
        beside = [one for one in operations.values() if not isinstance(one, Skip)]
        if not beside:
            raise ValueError(f"{label}: all its operations are a Skip, so there is nothing to skip")
        self.has_skip = len(beside) < len(operations)
        for operation in operations.values():
            if isinstance(operation, Skip):
                operation.stands_beside(beside)
        # For derived networks, where an operation has the place to itself: whether it has given its
        # input (or a view of it) as output, and whether a pass has then changed input or output in
        # place. Unknown until they have run.
        self.gives_input: dict[tuple[str, bool], bool] = {}  # by name and mode (train or not)
        self.is_of_one_tensor = True  # its input, and its output
        self.changed_later: bool | None = None

    def belongs_to(self, owner: Owner) -> None:
        """From now on, without a draw, it mixes as `owner` says."""
        self._owner = weakref.ref(owner)
        self.was_searched = True
        self._searched_names = self.names

    @property
    def owner(self) -> Owner | None:
        """The supernet whose alphas it has; None before a search, and where that is gone."""
        return None if self._owner is None else self._owner()

    def __getstate__(self) -> dict[str, Any]:
        # Copies and files know that there was a search, but not its alphas.
        return {**self.__dict__, "_owner": None}

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the operations, in alpha's column order."""
        return tuple(self.operations)

    def extra_repr(self) -> str:
        return f"name={self.name!r}"

    def __getattr__(self, name: str) -> Any:
        """A setting in which all operations agree (`batch_first`, `out_features`).

        Modules around a layer may read it, as torch's encoder does.
        """
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name.startswith("_") or "operations" not in self._modules:
                raise
        values = []
        for operation in self.operations.values():
            if not isinstance(operation, Skip):  # which has no settings of its own
                values.append(getattr(operation, name, _MISSING))
        first = values[0]
        is_setting = isinstance(first, (bool, int, float, str))
        if is_setting and all(type(v) is type(first) and v == first for v in values):
            return first
        raise AttributeError(
            f"Choice {self.name!r} has no attribute {name!r}: it stands for several operations, "
            f"which do not agree in a setting of that name. Layers around a Choice can call it; "
            "they cannot read what is its operations' own"
        )

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        draw = current()
        if draw is None:
            # A segment that is recomputed in backward has left the search's forward pass: equal
            # weights would then be silently wrong. (What torch checkpoints is told the draw.)
            if torch._C._current_graph_task_id() != -1:
                raise OutsideSearch(
                    f"Choice {self.name!r} was run inside backward, where nothing says what it "
                    "mixes: for activation checkpointing use torch.utils.checkpoint, in the "
                    "network or in the loss of the search"
                )
            if self.was_searched:
                draw = _draw_of_owner(self)
            else:
                outputs = self._outputs(range(len(self.names)), args, kwargs)
                equal_weights = [1.0 / len(outputs)] * len(outputs)
                everything = range(len(outputs))
                return mixture(outputs, equal_weights, lambda: self._names_of(everything))
        if self.name is None or self.name not in draw.mix:
            raise OutsideSearch(
                f"Choice {self.name!r} is not part of the running search: it was added after "
                "Search(...), or lies where torch finds no modules (in a plain list or a closure; "
                "use nn.ModuleList)"
            )
        output = self._under(self.name, draw, args, kwargs)
        if self.changed_later is None:
            watch(self, output, args, kwargs)
        return output

    def _under(self, name: str, draw: Draw, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What `draw` says, and the way back for the gradients of what it probes."""
        active = draw.active[name][0]
        mix_O = draw.mix[name]
        if self._searched_names is not None and self.names != self._searched_names:
            raise ValueError(
                f"Choice {self.name!r} had the operations {', '.join(self._searched_names)} when "
                f"Search(...) was made, and has {', '.join(self.names)} now: make a Search anew"
            )
        outputs = self._outputs(active, args, kwargs)
        weights = mix_O.unbind()  # one node of the graph, and not one for each operation
        own_weights = [weights[index] for index in active]
        mixed = mixture(outputs, own_weights, lambda: self._names_of(active))

        if draw.skip:
            mixed = _with_skip(self, mixed, draw.skip, args)
        columns = draw.probed[name][0] if draw.probed is not None else ()
        learns_mix = mix_O.requires_grad and torch.is_grad_enabled()
        if not columns or not learns_mix:
            return mixed
        operations = list(self.operations.values())
        beside = {index: operations[index] for index in columns}
        # A probe may run later, in backward, where this draw is no longer the current one.
        probes = Probes(beside, args, kwargs, mix_O.device, lambda: using(draw), self._label_of)
        return probed(mixed, mix_O, probes, draw.deferred, f"Choice {name!r}")

    def _outputs(
        self, columns: Sequence[int], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> list[Any]:
        operations = self._own_operations
        # A compiler sees no memory, and has its own rules for it.
        given = None if torch.compiler.is_compiling() else Inputs(args, kwargs)
        if not self.has_skip:
            return _outputs_without_skip(self, columns, given, args, kwargs)
        # What a skip gives depends on what the others give.
        names = list(operations)
        skips: dict[int, Skip] = {}
        for column, operation in enumerate(operations.values()):
            if isinstance(operation, Skip):
                skips[column] = operation

        def output(column: int) -> Any:
            key = names[column]
            return self._output(key, operations[key], given, args, kwargs)

        found: dict[int, Any] = {}
        for column in columns:
            if column not in skips:
                found[column] = output(column)
        if not found and not all(skip.knows(args, kwargs) for skip in skips.values()):
            column = next(k for k in range(len(names)) if k not in skips)
            found[column] = self._tried(names[column], given, args, kwargs)
        for column, one in found.items():
            for skip in skips.values():
                skip.learn(args, kwargs, one, self._label_of(column))
        for column in columns:
            if column in skips:
                found[column] = output(column)
        return [found[column] for column in columns]

    @torch.no_grad()
    def _tried(
        self, key: str, given: Inputs | None, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """The output of an operation that is not asked for; nothing changes by it."""
        operation = self._own_operations[key]
        draw = current()
        assert draw is not None
        # A choice inside it may be one that the draw does not reach.
        mix = {name: torch.full_like(table, 1.0) for name, table in draw.mix.items()}
        device = next(iter(mix.values())).device
        before = random_state(device)
        try:
            held = with_copied_buffers(held_by(operation))
            with holding(held), using(Draw.dense(mix)):
                return self._output(key, operation, given, args, kwargs)
        finally:
            set_random_state(before, device)

    def _output(
        self,
        key: str,
        operation: nn.Module,
        given: Inputs | None,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """Of one operation, which must leave the inputs to the others as they are."""
        output = operation(*args, **kwargs)
        if given is None:
            return output
        if not given.are_unchanged():
            given.refuse(operation, f"Choice {self.name!r}: operation {key!r}")
        if (key, operation.training) not in self.gives_input:
            self.gives_input[key, operation.training] = share_memory(given.tensors, output)
            is_one_input = len(args) == 1 and not kwargs and isinstance(args[0], Tensor)
            if not (is_one_input and isinstance(output, Tensor)):
                self.is_of_one_tensor = False
        return output

    @property
    def _own_operations(self) -> dict[str, nn.Module]:
        # Straight from where torch keeps them: every pass asks.
        operations: Any = self._modules["operations"]
        return operations._modules

    def _label_of(self, column: int) -> str:
        return f"Choice {self.name!r}: operation {self.names[column]!r}"

    def _names_of(self, active: Sequence[int]) -> tuple[str, list[str]]:
        """What an error calls this place and these operations."""
        names = self.names
        return f"Choice {self.name!r}", [names[index] for index in active]


def _outputs_without_skip(
    choice: Choice,
    columns: Sequence[int],
    given: Inputs | None,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> list[Any]:
    # As `_output` of each, without a call for it: on small maps this is most of what a search
    # takes beside a loop by hand.
    pairs = list(choice._own_operations.items())
    tensor, version = (None, 0) if given is None else given.only
    known = choice.gives_input
    outputs = []
    for column in columns:
        key, operation = pairs[column]
        if tensor is None or (key, operation.training) not in known:
            outputs.append(choice._output(key, operation, given, args, kwargs))
            continue
        outputs.append(operation(*args, **kwargs))
        if tensor._version != version:
            assert given is not None
            given.refuse(operation, f"Choice {choice.name!r}: operation {key!r}")
    return outputs


def _is_name(name: object) -> bool:
    return isinstance(name, str) and name != "" and "." not in name


def _with_skip(choice: Choice, mixed: Any, weight: float, args: tuple[Any, ...]) -> Any:
    """The mixture, and the first input beside it."""
    x = args[0] if args else None
    if isinstance(x, Tensor) and isinstance(mixed, Tensor) and x.shape == mixed.shape:
        return mixed + weight * x
    raise ValueError(
        f"Choice {choice.name!r} does not give a tensor of the shape of its first input, so "
        "there can be no auxiliary skip beside its operations: leave AuxiliarySkip out"
    )


def _draw_of_owner(choice: Choice) -> Draw:
    """The mixture of the alphas, where the module is called outside the search's passes."""
    owner = choice.owner
    if owner is None:
        raise OutsideSearch(
            f"Choice {choice.name!r} belongs to a search that is gone (this is a copy of a "
            "searched module, or its search was deleted), so nothing says what it mixes: call "
            "search.supernet(x) for the mixture, search.result().derive() for the derived "
            "network"
        )
    try:
        return owner.dense_draw()
    except OutsideSearch as error:
        raise OutsideSearch(f"Choice {choice.name!r}: {error}") from None
