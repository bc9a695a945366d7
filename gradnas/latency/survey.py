"""What a network is made of, as a device sees it: operations with the shapes they meet, found by
running it once.

A network with choices is cut into *units*: every operation that can be chosen, every largest module
without a choice inside (the stem, the head), and the *rest* of what runs between them (pooling by
function, additions, Python itself). The time of a derived network is then the sum of the units that
it keeps.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from gradnas.choice import Choice
from gradnas.latency.counts import count_macs


class Place(NamedTuple):
    """One operation of one choice: the row is the edge (0 for a single choice), the column that of
    alpha."""

    choice: str
    row: int
    column: int


When = tuple[Place, ...]
REST = "rest"  # type of the units that stand for what no module does


@dataclass(frozen=True)
class Unit:
    """One distinct (operation, input shape), and everywhere it is used.

    Attributes:
        key: its name in a table: type, shapes, and a digest of its structure.
        uses: for each use the operations that must have been chosen for it to run, outermost first;
            `()`: it always runs. One element for every call of the forward pass.
        label: where it was met first, for people: the choice and the operation, or the path of the
            module.
        features: what a predictor may know about it; sizes are of one call.
        macs: multiply-adds of one call, of the whole batch.
        params: number of parameters for each use, in the order of `uses`; a module that runs twice
            counts once.
        ready: a context manager that gives a function without arguments: one call of the unit with
            the inputs that it met (of a rest: with everything else short-circuited within the
            context).
    """

    key: str
    uses: tuple[When, ...]
    label: str
    features: Mapping[str, float]
    macs: int
    params: tuple[int, ...]
    ready: Callable[[], AbstractContextManager[Callable[[], Any]]] = field(
        compare=False, repr=False
    )

    @property
    def kind(self) -> str:
        """The first word of the key."""
        return self.key.partition("-")[0]


@dataclass(frozen=True)
class CostView:
    """How to run a supernet so that its operations have the form, and so the cost, that they have
    when derived.

    Attributes: the arguments of `survey` without the inputs.
    """

    net: nn.Module
    places: Mapping[nn.Module, Place] | None = None
    named: Mapping[str, Any] = field(default_factory=dict)
    named_for_rest: Mapping[str, Any] | None = None

    def survey(self, inputs: Sequence[Any]) -> list[Unit]:
        """Its units, with these inputs."""
        return survey(self.net, inputs, self.places, self.named, self.named_for_rest)


def alternatives(net: nn.Module) -> dict[nn.Module, Place]:
    """The operations of every `Choice` inside `net`."""
    found = {}
    for path, module in net.named_modules():
        if isinstance(module, Choice):
            name = module.name or path.replace(".", "/") or "choice"
            found.update(
                {
                    operation: Place(name, 0, k)
                    for k, operation in enumerate(module.operations.values())
                }
            )
    return found


def survey(
    net: nn.Module,
    inputs: Sequence[Any],
    places: Mapping[nn.Module, Place] | None = None,
    named: Mapping[str, Any] | None = None,
    named_for_rest: Mapping[str, Any] | None = None,
) -> list[Unit]:
    """The units of `net`, found by one forward pass in eval mode without gradients.

    Args:
        net: any module; without choices it has no alternatives, only fixed units.
        inputs: its positional inputs, on its device. Their shapes, batch included, are part of the
            keys.
        places: the modules that are alternatives; by default the operations of the `Choice`s
            inside.
        named: named arguments of the pass in which every alternative must run.
        named_for_rest: named arguments of the passes that time the rest; as `named` by default.

    Raises:
        ValueError: an alternative with parameters did not run, so that nothing is known about its
            cost.
    """
    places = alternatives(net) if places is None else places
    modes = [(module, module.training) for module in net.modules()]
    net.eval()
    try:
        with torch.no_grad():
            recorder = _Recorder(net, places)
            with recorder.watching():
                net(*inputs, **(named or {}))
            for module, place in places.items():
                if module not in recorder.ran and any(True for _ in module.parameters()):
                    raise ValueError(
                        f"operation {place.column} of choice {place.choice!r} did not run in the forward pass: its "
                        "cost cannot be found"
                    )
            return _units(recorder, named_for_rest if named_for_rest is not None else named or {})
    finally:
        for module, training in modes:
            module.training = training


# ---- watching the pass ---------------------------------------------------------------------------


@dataclass
class _Call:
    """One call of a unit, or of a module that holds choices (then `parts` are the calls right
    inside it)."""

    module: nn.Module
    path: str
    when: When
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any = None
    parts: list[_Call] | None = None
    rest: bool = (
        False  # a holder whose own work is a unit: the network, or an operation with choices inside
    )


class _Recorder:
    """Hooks that cut one forward pass into calls."""

    def __init__(self, net: nn.Module, places: Mapping[nn.Module, Place]) -> None:
        self.net, self.places = net, places
        self.paths = {module: path for path, module in net.named_modules()}
        self.holders = {
            m for m in net.modules() if any(isinstance(c, Choice) or c in places for c in _below(m))
        }
        self.holders |= {m for m in net.modules() if isinstance(m, Choice)} | {net}
        self.calls: list[_Call] = []  # units and holders with a rest
        self.ran: set[nn.Module] = set()
        self._open: list[_Call] = []
        self._inside = 0  # how deep inside a unit

    @contextmanager
    def watching(self) -> Iterator[None]:
        handles = []
        for module in self.net.modules():
            handles.append(module.register_forward_pre_hook(self._enter, with_kwargs=True))
            handles.append(module.register_forward_hook(self._leave))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.ran.add(module)
        if self._inside:
            self._inside += 1
            return
        when = self._open[-1].when if self._open else ()
        if module in self.places:
            when = (*when, self.places[module])
        call = _Call(module, self.paths[module], when, args, dict(kwargs))
        if module not in self.holders:
            self._inside = 1
        else:
            call.parts, call.rest = [], module is self.net or module in self.places
        self._open.append(call)

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        del args
        if self._inside > 1:
            self._inside -= 1
            return
        self._inside = 0
        call = self._open.pop()
        assert call.module is module
        call.output = output
        if call.parts is None or call.rest:
            self.calls.append(call)
        # Choices, and the modules that only hold them, are looked through: what they call is part
        # of the next holder whose own work is measured; except that a choice is short-circuited as
        # a whole.
        owner = next((above for above in reversed(self._open) if above.rest), None)
        inside_choice = any(isinstance(above.module, Choice) for above in self._after(owner))
        if (
            owner is not None
            and not inside_choice
            and (call.parts is None or isinstance(module, Choice))
        ):
            assert owner.parts is not None
            owner.parts.append(call)

    def _after(self, owner: _Call | None) -> list[_Call]:
        return self._open[self._open.index(owner) + 1 :] if owner is not None else []


def _below(module: nn.Module) -> Iterator[nn.Module]:
    modules = module.modules()
    next(modules)
    return modules


# ---- from calls to units -------------------------------------------------------------------------


def _units(recorder: _Recorder, named_for_rest: Mapping[str, Any]) -> list[Unit]:
    grouped: dict[str, list[_Call]] = {}
    for call in recorder.calls:
        grouped.setdefault(_key(call, recorder.holders), []).append(call)
    counted: set[nn.Parameter] = set()
    units = []
    for key, calls in grouped.items():
        call = calls[0]
        units.append(
            Unit(
                key=key,
                uses=tuple(c.when for c in calls),
                label=_label(call),
                features=_features(call),
                macs=_macs(_ready(call, named_for_rest)),
                params=tuple(_new_params(c, counted) for c in calls),
                ready=partial(_ready, call, named_for_rest),
            )
        )
    return units


def _label(call: _Call) -> str:
    name = f"{call.path or type(call.module).__name__}"
    return f"{REST} of {name}" if call.rest else name


def _ready(
    call: _Call, named_for_rest: Mapping[str, Any]
) -> AbstractContextManager[Callable[[], Any]]:
    if not call.rest:
        return nullcontext(lambda: call.module(*call.args, **call.kwargs))
    kwargs = call.kwargs if call.when else named_for_rest
    return _short_circuited(call.parts or [], lambda: call.module(*call.args, **kwargs))


@contextmanager
def _short_circuited(
    parts: Sequence[_Call], work: Callable[[], Any]
) -> Iterator[Callable[[], Any]]:
    """Within this block the modules of `parts` return at once what they returned before."""
    outputs: dict[nn.Module, list[Any]] = {}
    for part in parts:
        outputs.setdefault(part.module, []).append(part.output)
    try:
        for module, values in outputs.items():
            module.forward = _Replay(values)  # type: ignore[method-assign]
        yield work
    finally:
        for module in outputs:
            del module.forward


class _Replay:
    def __init__(self, values: list[Any]) -> None:
        self.values, self.next = values, 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        value = self.values[self.next % len(self.values)]
        self.next += 1
        return value


def _macs(ready: AbstractContextManager[Callable[[], Any]]) -> int:
    with ready as work:
        return count_macs(work)


def _new_params(call: _Call, counted: set[nn.Parameter]) -> int:
    own = list(call.module.parameters())
    if call.rest:
        skip = {p for part in call.parts or [] for p in part.module.parameters()}
        own = [p for p in own if p not in skip]
    fresh = [p for p in own if p not in counted]
    counted.update(fresh)
    return sum(p.numel() for p in fresh)


# ---- names ---------------------------------------------------------------------------------------


def _key(call: _Call, holders: set[nn.Module]) -> str:
    tensors = list(_tensors((call.args, call.kwargs)))
    kind = REST if call.rest else type(call.module).__name__
    inputs = ",".join(_shape(t) for t in tensors) or "none"
    outputs = ",".join(_shape(t) for t in _tensors(call.output)) or "none"
    structure = _structure(call.module, holders if call.rest else set())
    # The memory format is a setting of the whole table, not of an operation, and so no part of its
    # name.
    text = "|".join([structure, inputs, *(str(t.dtype) for t in tensors)])
    return f"{kind}-input:{inputs}-output:{outputs}-id:{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def _structure(module: nn.Module, holders: set[nn.Module]) -> str:
    """A text that is equal for modules that do the same: classes, plain settings, shapes of
    tensors.

    What can be chosen is left out, so that the rest of a network keeps its name whatever its
    candidates are.
    """
    if isinstance(module, Choice) and holders:
        return "Choice"
    tensors = {
        **dict(module.named_parameters(recurse=False)),
        **dict(module.named_buffers(recurse=False)),
    }
    settings = {
        k: repr(v) for k, v in sorted(vars(module).items()) if not k.startswith("_") and _plain(v)
    }
    settings.pop("training", None)
    own = [type(module).__qualname__, module.extra_repr(), str(settings)]
    own += [f"{name}:{tuple(t.shape)}:{t.dtype}" for name, t in tensors.items()]
    return (
        f"({';'.join(own)}[{','.join(_structure(child, holders) for child in module.children())}])"
    )


def _plain(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return all(_plain(item) for item in value)
    return value is None or isinstance(value, (bool, int, float, str))


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "1"


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _tensors(item)


# ---- what a predictor may know -------------------------------------------------------------------


def _features(call: _Call) -> dict[str, float]:
    """Sizes and counts of layers; `{}` for a rest, which no predictor should guess."""
    if call.rest:
        return {}
    inputs, outputs = list(_tensors((call.args, call.kwargs))), list(_tensors(call.output))
    convolutions = [m for m in call.module.modules() if isinstance(m, nn.modules.conv._ConvNd)]
    first = inputs[0] if inputs else None
    channels = first.shape[1] if first is not None and first.dim() > 1 else 1
    widest = max([m.out_channels for m in convolutions], default=channels)
    pixels_in, pixels_out = (math.prod(t[0].shape[2:]) if t else 1 for t in (inputs, outputs))
    return {
        "inputs": sum(t.numel() for t in inputs),
        "outputs": sum(t.numel() for t in outputs),
        "channels_in": channels,
        "channels_out": outputs[0].shape[1] if outputs and outputs[0].dim() > 1 else 1,
        "kernel": max([max(m.kernel_size) for m in convolutions], default=1),
        "stride": (pixels_in / max(1, pixels_out)) ** 0.5,
        "expansion": widest / channels,
        "skip": float(bool(inputs and outputs) and inputs[0].shape == outputs[0].shape),
        "params": sum(p.numel() for p in call.module.parameters()),
        **_inside(call),
    }


def _inside(call: _Call) -> dict[str, float]:
    """What one more pass sees of the layers within: how many of each type run, what they write,
    what they multiply."""
    seen = dict.fromkeys(("convolutions", "depthwise", "linear", "norms", "others", "written"), 0.0)
    seen |= {"pointwise_macs": 0.0, "depthwise_macs": 0.0, "other_macs": 0.0}

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        del args
        written = sum(t.numel() for t in _tensors(output))
        kind = "others"
        if isinstance(module, nn.modules.conv._ConvNd):
            deep = module.groups > 1 and module.groups == module.in_channels
            kind = "depthwise" if deep else "convolutions"
            which = (
                "depthwise" if deep else "pointwise" if max(module.kernel_size) == 1 else "other"
            )
            seen[f"{which}_macs"] += written * module.weight[0].numel()
        elif isinstance(module, nn.Linear):
            kind = "linear"
            seen["pointwise_macs"] += written * module.in_features
        elif isinstance(module, nn.modules.batchnorm._NormBase):
            kind = "norms"
        seen[kind] += 1
        seen["written"] += written

    leaves = [m for m in call.module.modules() if not list(m.children())]
    handles = [m.register_forward_hook(leave) for m in leaves]
    try:
        call.module(*call.args, **call.kwargs)
    finally:
        for handle in handles:
            handle.remove()
    return seen
