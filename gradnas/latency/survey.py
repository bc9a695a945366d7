"""What a network is made of, as a device sees it: operations with the shapes they meet.

A network with choices is cut into *units*: every operation that can be chosen, every largest module
without a choice inside (the stem, the head), and the *rest* of what runs between them (pooling by
function, additions, Python itself). The time of a derived network is then the sum of the units that
it keeps. They are found by running the network once.
"""

from __future__ import annotations

import dis
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from gradnas.choice import Choice
from gradnas.latency.counts import in_eval_mode, uncountable
from gradnas.latency.features import features_of
from gradnas.latency.recorder import Call, Recorder, plain_settings, tensors_in
from gradnas.latency.registered import Place, Registered, When, registered
from gradnas.modules.draws import Draw, using

Work = Callable[[], object]  # one call, to be timed or counted; what it gives is not looked at
Ready = Callable[[], AbstractContextManager[Work]]  # entering and leaving is not timed

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
        macs: multiply-adds of one call, of the whole batch; None where they cannot be counted.
        params: number of its parameters; of a rest, those that lie in none of its parts.
        uncounted: why `macs` is None, as a sentence.
        ready: a context manager that gives a function without arguments: one call of the unit with
            the inputs that it met (of a rest: with everything else short-circuited within the
            context).
    """

    key: str
    uses: tuple[When, ...]
    label: str
    features: Mapping[str, float]
    macs: int | None
    params: int
    uncounted: str
    ready: Callable[[], AbstractContextManager[Callable[[], Any]]] = field(
        compare=False, repr=False
    )

    @property
    def kind(self) -> str:
        """The first word of the key."""
        return self.key.partition("-")[0]


@dataclass(frozen=True)
class Survey(Sequence[Unit]):
    """The units of a network, a sequence, and what one pass does not show.

    Attributes:
        units: what ran.
        registered: what lies where, whether it ran or not.
        asleep: the choices that did not run.
    """

    units: tuple[Unit, ...]
    registered: Registered
    asleep: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.units)

    def __getitem__(self, index: Any) -> Any:
        return self.units[index]


@dataclass(frozen=True)
class CostView:
    """How to run a supernet so that its operations cost what they cost in a derived network.

    Attributes: the arguments of `survey` without the inputs.
    """

    net: nn.Module
    places: Mapping[nn.Module, Place] = field(default_factory=dict)
    named: Mapping[str, Any] = field(default_factory=dict)
    named_for_rest: Mapping[str, Any] | None = None

    def called_with(self, named: Mapping[str, Any] | None) -> CostView:
        """The same with more named arguments in every pass."""
        if not named:
            return self
        rest = self.named if self.named_for_rest is None else self.named_for_rest
        return replace(self, named={**named, **self.named}, named_for_rest={**named, **rest})

    def survey(self, inputs: Sequence[Any]) -> Survey:
        """Its units, with these inputs."""
        return survey(self.net, inputs, self.places, self.named, self.named_for_rest)


def survey(
    net: nn.Module,
    inputs: Sequence[object],
    places: Mapping[nn.Module, Place] | None = None,
    named: Mapping[str, Any] | None = None,
    named_for_rest: Mapping[str, Any] | None = None,
) -> Survey:
    """The units of `net`, found by one forward pass in eval mode without gradients.

    Args:
        net: any module; without choices it has no alternatives, only fixed units.
        inputs: its positional inputs, on its device. Their shapes, batch included, are part of the
            keys.
        places: modules that are alternatives of each other, beside the operations of the `Choice`s
            inside.
        named: named arguments of the pass in which every alternative must run.
        named_for_rest: named arguments of the passes that time the rest; as `named` by default.

    Raises:
        ValueError: an alternative with parameters did not run, so that nothing is known about its
            cost, though its choice did.
    """
    places = places or {}
    if named is None:
        named = {}
    if named_for_rest is None:
        named_for_rest = named
    with in_eval_mode(net), torch.no_grad():
        recorder = Recorder(net, places)
        with recorder.watching(), _everything(recorder.names):
            net(*inputs, **named)
        _check_that_all_ran(recorder)
        units = _units(recorder, named_for_rest)
    asleep = {name for choice, name in recorder.names.items() if choice not in recorder.ran}
    awake = {name for choice, name in recorder.names.items() if choice in recorder.ran}
    return Survey(tuple(units), registered(net, places), tuple(sorted(asleep - awake)))


def _everything(names: Mapping[nn.Module, str]) -> AbstractContextManager[None]:
    """Within: every operation of every choice runs, whatever search the choices belong to."""
    mix = {}
    for choice, name in names.items():
        assert isinstance(choice, Choice)
        if choice.name is None:
            return nullcontext()  # it was never searched, and runs them all by itself
        number = len(choice.operations)
        mix[name] = torch.full((number,), 1.0 / number, device="cpu")  # a mixture moves it
    return using(Draw.dense(mix))


def _check_that_all_ran(recorder: Recorder) -> None:
    alternatives = dict(recorder.places)
    for choice, name in recorder.names.items():
        # A choice that did not run at all costs nothing where it does not run.
        if choice in recorder.ran:
            assert isinstance(choice, Choice)
            for column, operation in enumerate(choice.operations.values()):
                alternatives[operation] = Place(name, 0, column)
    for module, place in alternatives.items():
        # One without parameters need not run: a supernet may know without it what a zero gives.
        has_parameters = next(module.parameters(), None) is not None
        if module not in recorder.ran and has_parameters:
            raise ValueError(
                f"operation {place.column} of choice {place.choice!r} did not run in the forward "
                "pass: its cost cannot be found"
            )


def _units(recorder: Recorder, named_for_rest: Mapping[str, Any]) -> list[Unit]:
    """The calls, those of equal operations on equal shapes together."""
    grouped: dict[str, list[Call]] = {}
    for call in recorder.calls:
        key = _key(call, recorder.state)
        # Rests of one structure may differ by what the choices inside them give.
        while key in grouped and not _equal_work(grouped[key][0], call):
            key += "+"
        grouped.setdefault(key, []).append(call)
    units = []
    for key, equal_calls in grouped.items():
        # Equal operations on equal shapes take equal time, so one of them is timed for all.
        first = equal_calls[0]
        uncounted = "" if first.unknown is None else uncountable(*first.unknown)
        unit = Unit(
            key=key,
            uses=tuple(call.when for call in equal_calls),
            label=_label(first),
            features=features_of(first),
            macs=None if uncounted else first.macs,
            params=_own_params(first),
            uncounted=uncounted,
            ready=partial(_ready, first, named_for_rest),
        )
        units.append(unit)
    return units


def _equal_work(one: Call, other: Call) -> bool:
    """Whether calls of equal keys do the same."""
    if one.macs != other.macs or one.unknown != other.unknown:
        return False
    shapes = []
    for call in (one, other):
        given = [part.output for part in call.parts or []]
        shapes.append(_shapes(list(tensors_in(given))))
    return shapes[0] == shapes[1]


def _label(call: Call) -> str:
    name = call.path or type(call.module).__name__
    return f"{REST} of {name}" if call.rest else name


def _own_params(call: Call) -> int:
    elsewhere: set[nn.Parameter] = set()
    if call.rest:
        for part in call.parts or []:
            elsewhere.update(part.module.parameters())
    return sum(p.numel() for p in call.module.parameters() if p not in elsewhere)


# ---- calling one unit again ----------------------------------------------------------------------


def _ready(call: Call, named_for_rest: Mapping[str, object]) -> AbstractContextManager[Work]:
    if not call.rest:
        return nullcontext(lambda: call.module(*call.args, **call.kwargs))
    # The network's own rest runs as in a derived network; that of an operation as it was met.
    kwargs = call.kwargs if call.when else named_for_rest
    return _short_circuited(call.parts or [], lambda: call.module(*call.args, **kwargs))


@contextmanager
def _short_circuited(parts: Sequence[Call], work: Work) -> Iterator[Work]:
    """Within this block the modules of `parts` return at once what they returned before.

    What is then left to time is the rest, on real values: a subtraction of two times would give it
    too, with the errors of both.
    """
    outputs: dict[nn.Module, list[object]] = {}
    for part in parts:
        outputs.setdefault(part.module, []).append(part.output)
    try:
        for module, values in outputs.items():
            # On the instance, where Python looks before it looks at the class.
            module.forward = _Replay(values)  # type: ignore[method-assign]
        yield work
    finally:
        for module in outputs:
            del module.forward  # the one of its class again


class _Replay:
    """The outputs of a module in one pass, in turn, over and over: timing makes many passes."""

    def __init__(self, values: list[object]) -> None:
        self.values = values
        self.next = 0

    def __call__(self, *args: object, **kwargs: object) -> object:
        value = self.values[self.next % len(self.values)]
        self.next += 1
        return value


# ---- names ---------------------------------------------------------------------------------------


def _key(call: Call, state: set[tuple[nn.Module, str]]) -> str:
    """`TYPE-input:SHAPES-output:SHAPES-id:DIGEST`, equal for what takes equal time.

    Args:
        state: (module, attribute) of what a pass changes: it is no setting.
    """
    given = list(tensors_in((call.args, call.kwargs)))
    kind = REST if call.rest else type(call.module).__name__
    inputs = _shapes(given)
    outputs = _shapes(list(tensors_in(call.output)))
    # The memory format is a setting of the whole table, not of an operation, and so no part of its
    # name.
    described = [_structure(call.module, call.rest, state), inputs]
    described += [str(t.dtype) for t in given]
    digest = hashlib.sha256("|".join(described).encode()).hexdigest()[:10]
    return f"{kind}-input:{inputs}-output:{outputs}-id:{digest}"


def _structure(module: nn.Module, without_choices: bool, state: set[tuple[nn.Module, str]]) -> str:
    """A text that is equal for modules that do the same: classes, settings, shapes of tensors.

    What can be chosen is left out of a rest, which so keeps its name whatever its candidates are.
    """
    if without_choices and isinstance(module, Choice):
        return "Choice"
    written = _written_in_forward(type(module))
    settings = {}
    for name, value in plain_settings(module).items():
        if (module, name) not in state and name not in written:
            settings[name] = value
    shown = settings.pop("extra_repr()", "")
    own = [type(module).__qualname__, shown, str(settings)]
    tensors = {
        **dict(module.named_parameters(recurse=False)),
        **dict(module.named_buffers(recurse=False)),
    }
    for name, tensor in tensors.items():
        own.append(f"{name}:{tuple(tensor.shape)}:{tensor.dtype}")
    children = [_structure(child, without_choices, state) for child in module.children()]
    return f"({';'.join(own)}[{','.join(children)}])"


@cache
def _written_in_forward(kind: type[nn.Module]) -> frozenset[str]:
    """The attributes that `forward` sets, perhaps in training alone: state, such as a counter."""
    names = set()
    for base in kind.__mro__:
        code = getattr(base.__dict__.get("forward"), "__code__", None)
        if code is not None:
            for instruction in dis.get_instructions(code):
                if instruction.opname == "STORE_ATTR":
                    names.add(instruction.argval)
    return frozenset(names)


def _shapes(tensors: list[Tensor]) -> str:
    shapes = ["x".join(map(str, t.shape)) or "1" for t in tensors]  # a scalar has no sizes
    return ",".join(shapes) or "none"
