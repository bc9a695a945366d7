"""Watching one forward pass: which modules were called, with what, within which choices.

Hooks see every module of any network, whatever its `forward` looks like, so nothing has to be known
about layers. Work that no module does (an addition, a pooling by function) is seen as what is left
of the module around it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from gradnas.choice import Choice
from gradnas.latency.counts import counting, module_label
from gradnas.latency.registered import Place, When, choice_names
from gradnas.modules.nesting import items_of


@dataclass(eq=False)
class Call:
    """One call of a unit, or of a *holder*: a module that holds choices.

    Attributes:
        module, path: what was called, and its name in the network.
        when: the operations around it, and itself if it is one, outermost first.
        args, kwargs, output: what it was given and gave.
        parts: of a holder, the calls right inside it that are timed elsewhere; None for a unit.
        rest: a holder whose own work is a unit: the network, or an operation with choices inside.
        macs: multiply-adds of the unit, or of the rest.
        unknown: an operator in it whose multiply-adds are not known, and the module it is in.
        met: of a choice, how often each operation was called: one may stand in it twice.
    """

    module: nn.Module
    path: str
    when: When
    args: tuple[object, ...]
    kwargs: dict[str, object]
    output: object = None
    parts: list[Call] | None = None
    rest: bool = False
    macs: int = 0
    unknown: tuple[str, str] | None = None
    met: dict[nn.Module, int] = field(default_factory=dict)


class Recorder:
    """Hooks that cut one forward pass of `net` into calls, and count what each multiplies.

    Args:
        places: modules that are alternatives of each other, beside the operations of choices.

    Attributes:
        calls: units, and holders with a rest, in the order in which they ended.
        ran: every module that was called.
        state: (module, attribute) of the plain attributes that the pass changed: no settings.
    """

    def __init__(self, net: nn.Module, places: Mapping[nn.Module, Place]) -> None:
        self.net = net
        self.places = places
        self.paths = {module: path for path, module in net.named_modules()}
        self.names = choice_names(net)
        self.holders = _holders(net, places)
        self.calls: list[Call] = []
        self.ran: set[nn.Module] = set()
        self.state: set[tuple[nn.Module, str]] = set()
        self._open: list[Call] = []  # begun and not ended, outermost first; a unit is the last
        self._depth = 0  # calls deep inside a unit, with its own; 0: in no unit
        self._running: list[nn.Module] = []  # all of them, the innermost last

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Within: the hooks are on."""
        for module, path in self.paths.items():
            if isinstance(module, torch.jit.ScriptModule):
                raise ValueError(
                    f"{module_label(path, module)} is a module of TorchScript, whose cost in a "
                    "search cannot be told: give the module as it was before torch.jit.script or "
                    "torch.jit.trace"
                )
        before = {module: plain_settings(module) for module in self.net.modules()}
        handles = []
        for module in self.net.modules():
            handles.append(module.register_forward_pre_hook(self._enter, with_kwargs=True))
            handles.append(module.register_forward_hook(self._leave))
        try:
            with counting(self._multiplied, self._met_unknown):
                yield
        finally:
            for handle in handles:
                handle.remove()
        for module, settings in before.items():
            after = plain_settings(module)
            for name in settings.keys() | after.keys():
                if settings.get(name) != after.get(name):
                    self.state.add((module, name))

    # ---- hooks -----------------------------------------------------------------------------------

    def _enter(
        self, module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> None:
        self.ran.add(module)
        self._running.append(module)
        if self._depth:
            # A unit is the largest module without a choice inside: what it calls is its own affair.
            self._depth += 1
            return
        if torch._C._functorch.peek_interpreter_stack() is not None:
            # What it is given cannot be kept: those tensors end with the transform.
            raise ValueError(
                f"{module_label(self.paths[module], module)} runs inside a transform of torch.func "
                "(vmap, grad), where its cost cannot be told apart: put the transform into a "
                "module without choices, inside the operations"
            )
        when = self._open[-1].when if self._open else ()
        place = self._place(module)
        if place is not None:
            when = (*when, place)
        call = Call(module, self.paths[module], when, args, dict(kwargs))
        if module in self.holders:
            call.parts = []
            # A choice does nothing itself: a derived network has an operation where it was.
            is_whole = module is self.net or place is not None
            call.rest = is_whole and not isinstance(module, Choice)
        else:
            self._depth = 1
        self._open.append(call)

    def _place(self, module: nn.Module) -> Place | None:
        """Which alternative this call is of: one module may be several."""
        around = self._open[-1] if self._open else None
        if around is None or not isinstance(around.module, Choice):
            return self.places.get(module)
        operations = list(around.module.operations.values())
        columns = [k for k, operation in enumerate(operations) if operation is module]
        if not columns:
            return None
        number = around.met.get(module, 0)
        around.met[module] = number + 1
        return Place(self.names[around.module], 0, columns[number % len(columns)])

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        del args
        self._running.pop()
        if self._depth > 1:
            self._depth -= 1
            return
        self._depth = 0
        call = self._open.pop()
        assert call.module is module
        call.output = output  # what the call is replaced by while the rest around it is timed
        is_unit = call.parts is None
        if is_unit or call.rest:
            self.calls.append(call)

        # A call is a part of the nearest holder around it whose own work is measured. Modules that
        # only hold choices are looked through: their own work counts as that holder's. A choice is
        # a part as a whole, and what is inside it none: it does not run when the rest is timed.
        if not (is_unit or isinstance(module, Choice)):
            return
        for around in reversed(self._open):
            if isinstance(around.module, Choice):
                return
            if around.rest:
                assert around.parts is not None
                around.parts.append(call)
                return

    # ---- multiply-adds ---------------------------------------------------------------------------

    def _worker(self) -> Call | None:
        """The call that does what is being done: the unit at work, or the nearest rest."""
        for call in reversed(self._open):
            if call.parts is None or call.rest:
                return call
        return None

    def _multiplied(self, number: int) -> None:
        worker = self._worker()
        if worker is not None:
            worker.macs += number

    def _met_unknown(self, operator: str) -> None:
        worker = self._worker()
        if worker is not None and worker.unknown is None:
            innermost = self._running[-1]
            where = module_label(self.paths[innermost], innermost)
            worker.unknown = (operator, where)


def _holders(net: nn.Module, places: Mapping[nn.Module, Place]) -> set[nn.Module]:
    """The network, its choices, and all modules with a choice or an alternative inside."""
    holders: set[nn.Module] = {net}
    for module in net.modules():
        if isinstance(module, Choice):
            holders.add(module)
        for inner in module.modules():
            is_inside = inner is not module
            if is_inside and (isinstance(inner, Choice) or inner in places):
                holders.add(module)
                break
    return holders


def plain_settings(module: nn.Module) -> dict[str, str]:
    """The public attributes of a module that are plain values, as text, and what its repr shows."""
    settings = {"extra_repr()": module.extra_repr()}
    for name, value in sorted(vars(module).items()):
        if not name.startswith("_") and name != "training" and _is_plain(value):
            settings[name] = repr(value)
    return settings


def _is_plain(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, (bool, int, float, str))


def tensors_in(value: object) -> Iterator[Tensor]:
    """The tensors of a nesting, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_in(item)
    else:
        for _, item in items_of(value) or []:
            yield from tensors_in(item)
