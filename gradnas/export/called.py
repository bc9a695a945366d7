"""A network that is called in any way, as a torch program or as ONNX, and compared with itself.

Inputs may be named, and nested in tuples, lists and dictionaries. Which axes a batch lies along is
seen from two calls with different numbers of examples.
"""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from gradnas import runs
from gradnas.architectures.base import Architecture
from gradnas.config import JsonObject
from gradnas.export.programs import METADATA, program_bytes, quiet
from gradnas.modules.call import Call
from gradnas.modules.nesting import items_of, take_apart
from gradnas.version import __version__

FAILURES = (  # torch has no class of its own for what it cannot export
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        any_batch: whether batches of any size can be given.
        fixed_because: why not.
        difference: the largest one between the outputs of the file and of torch; None where they
            were not compared.
        num_compared: calls.
        largest: the largest output of torch, by its absolute value.
    """

    any_batch: bool
    fixed_because: str = ""
    difference: float | None = None
    num_compared: int = 0
    largest: float = 0.0


def write_called(
    network: nn.Module,
    path: Path,
    call: Call,
    other: Call | None,
    held_out: Sequence[Call],
    *,
    architecture: Architecture,
    facts: JsonObject,
) -> Exported:
    """Write a network as ONNX where `path` ends in `.onnx`, else as a torch program.

    Args:
        network: in evaluation mode, in float32, on the CPU.
        call: what it is called with, for two examples at least: torch takes a size of 1 for a
            constant.
        other: the same for another number of examples; None: batches have the size of `call`.
        held_out: what file and network are compared on, those that have the size of `call` where
            batches have it.
        architecture, facts: what goes into the file beside the network; JSON values.

    Raises:
        ValueError: torch cannot export the network; the file gives other outputs than torch.
    """
    with torch.no_grad():
        outputs = call.on(network)
    exported = network if _is_plain(outputs) else _PlainOutputs(network)
    program, fixed_because = _program_of(exported, call, other)
    for node in program.graph.nodes:  # source lines with the folders of this machine
        node.meta.pop("stack_trace", None)
    about = json.dumps({"gradnas": __version__, "genotype": architecture.to_text(), **facts})
    try:
        if path.suffix == ".onnx":
            data = _onnx_bytes(program, about, _names(call))
        else:
            data = program_bytes(program, about)
    except FAILURES as error:
        raise ValueError(f"torch cannot write {path.name}: {_first_line(_cause(error))}") from error
    any_batch = not fixed_because
    calls = [own for own in held_out if any_batch or _shapes(own) == _shapes(call)]
    difference = None
    largest = 0.0
    if calls and (path.suffix != ".onnx" or importlib.util.find_spec("onnxruntime") is not None):
        difference, largest = _compared(network, data, path.suffix, calls)
    runs.write_atomically(path, data)
    return Exported(any_batch, fixed_because, difference, len(calls), largest)


# -- the program -----------------------------------------------------------------------------------


def _program_of(
    network: nn.Module, call: Call, other: Call | None
) -> tuple[torch.export.ExportedProgram, str]:
    """The program, and why its batch has a fixed size; empty where it has not."""
    why = "how a batch of another size looks is not known: its batches come from a loader"
    if other is not None:
        try:
            return _exported(network, call, _shapes_of_batches(network, call, other)), ""
        except _OfOneSize as error:
            why = str(error)
        except FAILURES as error:
            why = _first_line(error)
            if "specialized it to be a constant" in str(error):
                why = (
                    "its forward takes the number of examples for a constant, as len(x) does, "
                    "where x.shape[0] leaves it open"
                )
    try:
        return _exported(network, call, None), why
    except FAILURES as error:
        raise ValueError(
            f"torch cannot export a {type(network).__name__}: {_first_line(error)}"
        ) from error


def _exported(network: nn.Module, call: Call, shapes: Any) -> torch.export.ExportedProgram:
    # Of what it cannot export torch prints the whole graph.
    with quiet(), contextlib.redirect_stderr(io.StringIO()):
        return torch.export.export(network, call.inputs, call.named, dynamic_shapes=shapes)


class _PlainOutputs(nn.Module):
    """A network whose outputs are tuples, lists and dictionaries: no file knows other classes."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

        def forward(*inputs: Any, **named: Any) -> Any:
            return _plain(network(*inputs, **named))

        # Under the names of the network: of `**named` torch takes no axes of a batch.
        forward.__signature__ = inspect.signature(network.forward)  # type: ignore[attr-defined]
        self.forward = forward


def _plain(value: Any) -> Any:
    items = items_of(value)
    if items is None:
        return value
    parts = {key: _plain(item) for key, item in items if item is not None}
    if isinstance(value, (tuple, list)):
        return list(parts.values()) if type(value) is list else tuple(parts.values())
    return {str(key): part for key, part in parts.items()}


def _is_plain(value: Any) -> bool:
    items = items_of(value)
    if items is None:
        return True
    return type(value) in (tuple, list, dict) and all(_is_plain(item) for _, item in items)


def _cause(error: BaseException) -> BaseException:
    """What torch's exporters wrap in errors that say what comes next, and not what was wrong."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _first_line(error: BaseException) -> str:
    lines = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip().splitlines()  # without colours
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


class _OfOneSize(Exception):
    """Why a network is called with batches of one size alone."""


def _shapes_of_batches(network: nn.Module, call: Call, other: Call) -> dict[str, Any]:
    """Which axes of what goes in a batch lies along.

    Raises:
        _OfOneSize: it lies along none.
    """
    forms = [pytree.tree_structure((own.inputs, own.named)) for own in (call, other)]
    if forms[0] != forms[1]:
        raise _OfOneSize("a batch of another size has another number of tensors in its lists")
    batch = torch.export.Dim("batch")
    args = _axes(call.inputs, other.inputs, batch)
    named = _axes(call.named, other.named, batch)
    if batch not in pytree.tree_leaves((args, named)):
        raise _OfOneSize(
            "it is first called with tensors of the same shapes for two and for three examples"
        )
    # By name: torch knows the inputs in the order of the signature.
    return dict(inspect.signature(network.forward).bind(*args, **named).arguments)


def _axes(one: Any, other: Any, batch: Any) -> Any:
    """For every tensor the axis along which two calls differ, in containers as the inputs are."""

    def axes(a: Any, b: Any) -> Any:
        if not isinstance(a, Tensor) or not isinstance(b, Tensor) or a.dim() != b.dim():
            return None
        sizes = enumerate(zip(a.shape, b.shape, strict=True))
        return {axis: batch for axis, (m, n) in sizes if m != n}

    return pytree.tree_map(axes, one, other)


# -- the file --------------------------------------------------------------------------------------


def _names(call: Call) -> list[str]:
    """A name for each tensor that goes in, in the order of torch."""
    names = []
    for number, value in enumerate(call.inputs):
        names += _numbered(f"input{number}", value)
    for name, value in call.named.items():
        names += _numbered(name, value)
    return names


def _numbered(name: str, value: Any) -> list[str]:
    tensors = [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor)]
    if len(tensors) == 1 and isinstance(value, Tensor):
        return [name]
    return [f"{name}_{number}" for number in range(len(tensors))]


def _onnx_bytes(program: torch.export.ExportedProgram, about: str, names: Sequence[str]) -> bytes:
    with quiet():
        exported = torch.onnx.export(program, dynamo=True, verbose=False, input_names=list(names))
    assert exported is not None
    model = exported.model_proto
    entry = model.metadata_props.add()
    entry.key = METADATA
    entry.value = about
    return model.SerializeToString()


# -- the comparison --------------------------------------------------------------------------------


def _outputs(network: nn.Module, call: Call, seed: int) -> list[Tensor]:
    torch.manual_seed(seed)
    found: list[Tensor] = []
    take_apart(call.on(network), found)
    return found


def _is_random(network: nn.Module, call: Call) -> bool:
    """Whether outputs depend on torch's random numbers."""
    with torch.random.fork_rng(devices=[]):
        pairs = zip(_outputs(network, call, 0), _outputs(network, call, 1), strict=True)
        return not all(torch.equal(one.nan_to_num(), other.nan_to_num()) for one, other in pairs)


@torch.no_grad()
def _compared(
    network: nn.Module, data: bytes, suffix: str, calls: Sequence[Call]
) -> tuple[float, float]:
    """The largest difference of outputs, and the largest output."""
    run = _onnx_runner(data) if suffix == ".onnx" else _program_runner(data)
    difference = 0.0
    largest = 0.0
    for call in calls:
        # A network may draw random numbers, and a torch program then draws the same ones.
        with torch.random.fork_rng(devices=[]):
            wanted = _outputs(network, call, seed=0)
            torch.manual_seed(0)
            found = run(call)
        if len(found) != len(wanted):
            raise ValueError(
                f"the exported file gives {len(found)} outputs, and the network {len(wanted)}"
            )
        for own, theirs in zip(wanted, found, strict=True):
            if own.shape != theirs.shape:
                raise ValueError(
                    f"the exported file gives an output of shape {tuple(theirs.shape)}, and the "
                    f"network one of {tuple(own.shape)}"
                )
            if own.numel():
                difference = max(difference, float((own.double() - theirs.double()).abs().max()))
                largest = max(largest, float(own.double().abs().max()))
    if not difference <= 1e-3 * max(1.0, largest):  # NaN too
        if any(_is_random(network, call) for call in calls):
            raise ValueError(
                "the network draws random numbers in evaluation mode too, and the file draws "
                "others, so that nobody can compare them: draw in train mode alone, or take the "
                "numbers as an input"
            )
        raise ValueError(
            "the exported file gives other outputs than the network: they differ by "
            f"{difference:.3g}"
        )
    return difference, largest


def _program_runner(data: bytes) -> Any:
    with quiet():
        module = torch.export.load(io.BytesIO(data)).module()

    def run(call: Call) -> list[Tensor]:
        tensors: list[Tensor] = []
        take_apart(call.on(module), tensors)
        return tensors

    return run


def _onnx_runner(data: bytes) -> Any:
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]

    def run(call: Call) -> list[Tensor]:
        given = dict(zip(_names(call), _tensors(call), strict=True))
        missing = [name for name in names if name not in given]
        if missing:
            raise ValueError(f"the exported file asks for inputs that are not there: {missing}")
        feed = {name: given[name].numpy() for name in names}
        return [torch.from_numpy(value) for value in session.run(None, feed)]

    return run


def _tensors(call: Call) -> list[Tensor]:
    leaves = pytree.tree_leaves((call.inputs, list(call.named.values())))
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]


def _shapes(call: Call) -> list[tuple[int, ...]]:
    return [tuple(tensor.shape) for tensor in _tensors(call)]
