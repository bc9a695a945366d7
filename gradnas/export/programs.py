"""Trained networks for use elsewhere: a torch program, ONNX, or one readable source file that needs
torch alone.

Legend: B batch, C channels, H height, W width, K classes. What is exported is the network in
evaluation mode, in float32, without its auxiliary head: images (B, C, H, W), normalised as in
training, to logits (B, K), for any B.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import dataclasses
import importlib.util
import inspect
import io
import json
import logging
import math
import os
import sys
import warnings
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from gradnas import __version__, runs
from gradnas.architectures.base import Architecture
from gradnas.architectures.chain import Chain
from gradnas.architectures.genotype import Genotype
from gradnas.config import build
from gradnas.spaces import (
    ChainNetwork,
    ConvCell,
    ConvNetwork,
    ImageSpace,
    MBConvChain,
    operations,
)
from gradnas.spaces.cells import conv_network
from gradnas.spaces.chains import mbconv_network
from gradnas.spaces.chains.mbconv_network import chain_block
from gradnas.spaces.operations import OPERATIONS

METADATA = "gradnas"  # the ONNX property, and with .json the extra file of a .pt2, that hold genotype and images as JSON
LINE_LENGTH = 120  # of the source that is written


@dataclass(frozen=True)
class Images:
    """What the network was trained on (`gradnas.data.describe`): `mean` and `std` are of pixels in
    [0, 1]."""

    in_channels: int
    image_size: int
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...] = ()
    name: str = ""

    def __post_init__(self) -> None:
        if min(self.in_channels, self.image_size, self.num_classes) < 1:
            raise ValueError("in_channels, image_size and num_classes must be at least 1")
        if not len(self.mean) == len(self.std) == self.in_channels:
            raise ValueError(
                f"mean and std must have one number for each of the {self.in_channels} channels"
            )
        if not all(map(math.isfinite, (*self.mean, *self.std))) or min(self.std) <= 0:
            raise ValueError("mean and std must be finite, and std above 0")
        if Path(self.name).is_absolute():  # a folder of the machine that trained
            object.__setattr__(self, "name", Path(self.name).name)


def export_network(
    network: nn.Module,
    path: str | Path,
    *,
    data: Mapping[str, Any],
    genotype: Architecture,
    space: ImageSpace,
) -> list[Path]:
    """Write a network in the form that the ending of `path` names; the network itself is not
    changed.

    - `.pt2`: a torch program, for `torch.export.load(path).module()`.
    - `.onnx`: needs the extra `onnx`; input `images`, output `logits`.
    - `.py`: source that needs torch alone, with its weights in a file of the same name that ends in
      `.pt`.

    Files are written under a temporary name and renamed, the weights before the source.

    Args:
        data: the entries of `gradnas.data.describe`; they go into the file.
        genotype, space: what the network was built from.

    Returns:
        The files written.

    Raises:
        ValueError: another ending; a folder that is missing or not writable; a missing extra;
            incomplete `data`; a network that is not that of genotype and space; for `.py` an
            operation of the user's own, or a file of the weights' name that no export wrote.
    """
    path = Path(path)
    check_target(path)
    if not isinstance(network, (ConvNetwork, ChainNetwork)):
        raise ValueError(
            f"only a ConvNetwork or a ChainNetwork can be exported, not a {type(network).__name__}"
        )
    known = {field.name for field in dataclasses.fields(Images)}
    images = build(Images, {name: value for name, value in data.items() if name in known}, "data")
    # the file says "this genotype, at this size": another network must not get out under that name
    plain = _plain(network)
    _check_same(plain, images, genotype, space)
    if path.suffix == ".py":
        return _write_source(plain, path, images, genotype, space)
    program = _program(plain, images)
    about = {
        "gradnas": __version__,
        "genotype": genotype.to_text(),
        "data": dataclasses.asdict(images),
    }
    to_bytes = onnx_bytes if path.suffix == ".onnx" else program_bytes
    runs.write_atomically(path, to_bytes(program, json.dumps(about)))
    return [path]


def check_target(path: Path) -> None:
    """What can be known before the work: ending, extras, folder."""
    if path.suffix not in (".pt2", ".onnx", ".py"):
        raise ValueError(
            f"{path.name!r} must end in .pt2 (torch program), .onnx or .py (readable source)"
        )
    if path.suffix == ".onnx":
        missing = [
            name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None
        ]
        if missing:
            raise ValueError(
                f"an .onnx file needs {' and '.join(missing)}: pip install 'gradnas[onnx]'"
            )
    if not path.parent.is_dir():
        raise ValueError(f"cannot write {path}: there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise ValueError(f"cannot write {path}: no permission to write into {path.parent}")
    if path.is_dir():
        raise ValueError(f"cannot write {path}: it is a folder")


def _plain(network: nn.Module) -> nn.Module:
    """A copy in the form that is exported."""
    plain = copy.deepcopy(network)
    if isinstance(plain, ConvNetwork):
        plain.auxiliary_head = None
    return plain.to("cpu", torch.float32, memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]


def _check_same(
    network: nn.Module, images: Images, genotype: Architecture, space: ImageSpace
) -> None:
    """ValueError unless `space` builds the same function from `genotype`."""
    with torch.random.fork_rng(devices=[]):
        twin = space.network(genotype, images.num_classes, images.in_channels).eval()
    ours, others = (
        {name: t.shape for name, t in net.state_dict().items()} for net in (network, twin)
    )
    for name in {**ours, **others}:
        if ours.get(name) != others.get(name):
            raise ValueError(
                f"the network is not the one of this genotype, space and data: tensor {name!r} differs"
            )
    twin.load_state_dict(network.state_dict())
    # pooling and identities have no tensors to tell them apart, but their outputs do
    shape = (2, images.in_channels, images.image_size, images.image_size)
    x_BCHW = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        if not torch.allclose(network(x_BCHW), twin(x_BCHW), rtol=1e-4, atol=1e-5, equal_nan=True):
            raise ValueError(
                "the network is not the one of this genotype and space: its logits differ"
            )


# ---- programs ------------------------------------------------------------------------------------


def _program(network: nn.Module, images: Images) -> torch.export.ExportedProgram:
    """The network as a graph of torch operations, for any batch size."""
    x_BCHW = torch.zeros(
        2, images.in_channels, images.image_size, images.image_size
    )  # torch takes a 1 for a constant
    with quiet():
        program = torch.export.export(
            network, (x_BCHW,), dynamic_shapes=({0: torch.export.Dim("batch")},)
        )
    for node in program.graph.nodes:  # source lines with the folders of this machine
        node.meta.pop("stack_trace", None)
    return program


def program_bytes(program: torch.export.ExportedProgram, about: str) -> bytes:
    buffer = io.BytesIO()
    with quiet():
        torch.export.save(program, buffer, extra_files={f"{METADATA}.json": about})
    return buffer.getvalue()


def onnx_bytes(
    program: torch.export.ExportedProgram,
    about: str,
    inputs: Sequence[str] = ("images",),
    outputs: Sequence[str] = ("logits",),
    dynamic_shapes: Any = ({0: "batch"},),
) -> bytes:
    with quiet():
        exported = torch.onnx.export(
            program,
            dynamo=True,
            verbose=False,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=dynamic_shapes,
        )
    assert exported is not None
    model = exported.model_proto
    entry = model.metadata_props.add()
    entry.key, entry.value = METADATA, about
    return model.SerializeToString()


@contextlib.contextmanager
def quiet() -> Generator[None, None, None]:
    """Without what torch's exporters say of themselves: their deprecated calls, and that
    torchvision is absent."""

    def matters(record: logging.LogRecord) -> bool:
        return "torchvision is not installed" not in record.getMessage()

    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    logger.addFilter(matters)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logger.removeFilter(matters)


# ---- source --------------------------------------------------------------------------------------


def _write_source(
    network: nn.Module, path: Path, images: Images, genotype: Architecture, space: ImageSpace
) -> list[Path]:
    weights = path.with_suffix(".pt")
    if weights.exists() and not path.exists():
        raise ValueError(
            f"{weights} exists and is not of an earlier export; choose another name, or move it away"
        )
    text = _source(images, genotype, space, weights.name)
    buffer = io.BytesIO()
    torch.save(network.state_dict(), buffer)
    runs.write_atomically(weights, buffer.getvalue())
    runs.write_atomically(path, text.encode())
    return [path, weights]


_HEAD = '''"""An image classifier from an architecture search, written by gradnas {version}; it needs torch alone.

    network = load()  # in evaluation mode, with the weights in the .pt file beside this one
    logits_BK = network(normalise(x_BCHW))  # images of {channels}x{size}x{size}, pixels in [0, 1]

Legend: B batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

{imports}

WEIGHTS = Path(__file__).with_name({weights})

# the images it was trained on; mean and standard deviation are of pixels in [0, 1]
DATA = {data}
IMAGE_SIZE = {size}
{mean}
{std}
{class_names}

{architecture}
'''

_CELLS = """\
# the cells: (operation, predecessor), two for each node from node 2 on; nodes 0 and 1 are the outputs of the two cells
# before; the nodes of a concat are the output"""
_CHAIN = """\
# the blocks: operation, channels in, channels out, stride; mbE_kK has expansion E and kernel K"""

_BUILD_CELLS = '''

def build() -> nn.Module:
    """The network with fresh weights."""
    return ConvNetwork(
        NORMAL,
        NORMAL_CONCAT,
        REDUCE,
        REDUCE_CONCAT,
        channels={space.channels},
        cells={space.cells},
        num_classes={images.num_classes},
        in_channels={images.in_channels},
        stem="{space.stem}",
    )
'''

_BUILD_CHAIN = '''

def build() -> nn.Module:
    """The network with fresh weights."""
    return ChainNetwork(
        [{first}*(chain_block(*block, "{space.activation}") for block in BLOCKS)],
        channels={channels},
        stem_width={stem},
        stem_stride={space.stem_stride},
        last_width={space.head_width},
        num_classes={images.num_classes},
        in_channels={images.in_channels},
        activation="{space.activation}",
        dropout={space.dropout},
    )
'''

_TAIL = '''

def load(path: str | Path = WEIGHTS) -> nn.Module:
    """The trained network in evaluation mode, on the CPU."""
    network = build()
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return network.eval()


def normalise(x_BCHW: Tensor) -> Tensor:
    """Pixels in [0, 1] as the network wants them."""
    mean_C11, std_C11 = (torch.tensor(values, device=x_BCHW.device).view(-1, 1, 1) for values in (MEAN, STD))
    return (x_BCHW - mean_C11) / std_C11
'''


def _source(images: Images, genotype: Architecture, space: ImageSpace, weights: str) -> str:
    """The text of the file. All that comes from data enters as literals, so that no name in it can
    become code."""
    if isinstance(genotype, Chain):
        assert isinstance(space, MBConvChain)
        architecture, (code, imports), build_it = _chain_source(images, genotype, space)
    else:
        assert isinstance(genotype, Genotype) and isinstance(space, ConvCell)
        architecture, (code, imports), build_it = _cell_source(images, genotype, space)
    head = _HEAD.format(
        version=__version__,
        channels=images.in_channels,
        size=images.image_size,
        imports=_import_lines(imports | {("pathlib", "Path"), ("torch", "")}),
        weights=_text(weights),
        data=_text(images.name),
        mean=_assignment("MEAN", "()", map(repr, images.mean)),
        std=_assignment("STD", "()", map(repr, images.std)),
        class_names=_assignment("CLASS_NAMES", "()", map(_text, images.class_names)),
        architecture=architecture,
    )
    return head + code + build_it + _TAIL


Code = tuple[str, set[tuple[str, str]]]  # source, and its imports as (module, name or "")


def _cell_source(images: Images, genotype: Genotype, space: ConvCell) -> tuple[str, Code, str]:
    names = {name for name, _ in (*genotype.normal, *genotype.reduce)}
    own = sorted(
        name
        for name in names
        if space.shape.factories.get(name, OPERATIONS.get(name)) is not OPERATIONS.get(name)
    )
    if own:
        raise ValueError(
            f"your own operation {own[0]!r} cannot be written as source; export to .pt2 or .onnx"
        )
    cells = [_CELLS]
    for name, edges, concat in (
        ("NORMAL", genotype.normal, genotype.normal_concat),
        ("REDUCE", genotype.reduce, genotype.reduce_concat),
    ):
        cells.append(
            _assignment(name, "[]", (f"({_text(operation)}, {node})" for operation, node in edges))
        )
        cells.append(_assignment(f"{name}_CONCAT", "[]", map(str, concat)))
    code = _network_code([operations, conv_network], {ConvNetwork.__name__}, names)
    return "\n".join(cells), code, _BUILD_CELLS.format(space=space, images=images)


def _chain_source(images: Images, chain: Chain, space: MBConvChain) -> tuple[str, Code, str]:
    pairs = list(zip(chain.blocks, space.blocks, strict=True))
    rows = [
        f"({_text(o)}, {block.channels_in}, {block.channels_out}, {block.stride})"
        for o, block in pairs
    ]
    blocks = f"{_CHAIN}\n{_assignment('BLOCKS', '[]', rows)}"
    stem, first = space.scaled(space.stem_width), ""
    roots = {ChainNetwork.__name__, chain_block.__name__}
    if space.first_width is not None:
        first = (
            f'MBConv({stem}, {space.scaled(space.first_width)}, 1, 3, 1, "{space.activation}"), '
        )
    channels = space.blocks[-1].channels_out
    build_it = _BUILD_CHAIN.format(
        space=space, images=images, first=first, stem=stem, channels=channels
    )
    return blocks, _network_code([mbconv_network], roots, set()), build_it


def _text(value: str) -> str:
    """A literal in double quotes where that needs no escapes."""
    return repr(value) if '"' in value else '"' + repr("'" + value)[2:]


def _assignment(name: str, brackets: str, items: Iterable[str]) -> str:
    """`name = [a, b]`, or one item to a line where that is too long."""
    items = list(items)
    opening, closing = brackets
    comma = "," if brackets == "()" and len(items) == 1 else ""
    line = f"{name} = {opening}{', '.join(items)}{comma}{closing}"
    if len(line) <= LINE_LENGTH:
        return line
    return "\n".join([f"{name} = {opening}", *(f"    {item}," for item in items), closing])


def _import_lines(imports: Iterable[tuple[str, str]]) -> str:
    """Import statements for (module, name or ""), sorted: the standard library, a blank line,
    torch."""
    names: dict[str, list[str]] = {}
    for module, name in imports:
        names.setdefault(module, []).append(name)
    sections = []
    for ours in (True, False):
        modules = sorted(
            m for m in names if (m.partition(".")[0] in sys.stdlib_module_names) == ours
        )
        lines = [f"import {module}" for module in modules if "" in names[module]]
        for module in modules:
            # classes before functions, as ruff sorts them
            chosen = sorted(filter(None, names[module]), key=lambda name: (name[0].islower(), name))
            lines += [f"from {module} import {', '.join(chosen)}"] if chosen else []
        sections.append("\n".join(lines))
    return "\n\n".join(sections)


def _network_code(modules: Iterable[ModuleType], roots: set[str], used: set[str]) -> Code:
    """The source of `roots` and of what they need, from these modules, with the operations
    `used`."""
    found: dict[str, Definition] = {}
    imported: dict[str, tuple[str, str]] = {}
    for module in modules:
        _read_module(module, used, found, imported)
    needed, waiting = set(), roots
    while waiting:
        needed |= waiting
        waiting = {name for n in waiting if n in found for name in found[n].names} - needed
    code, value_before = "", False
    for name, definition in found.items():
        if name in needed:
            is_value = not definition.source.startswith(("def ", "class ", "@"))
            code += ("\n" if is_value and value_before else "\n\n") + definition.source + "\n"
            value_before = is_value
    imports = {imported[name] for name in needed - found.keys() if name in imported}
    assert not any(module.startswith("gradnas") for module, _ in imports), imports
    return code, imports


@dataclass(frozen=True)
class Definition:
    """One top-level statement of a module: its source with the comment above it, and the names in
    it."""

    source: str
    names: frozenset[str]


def _read_module(
    module: ModuleType,
    used: set[str],
    found: dict[str, Definition],
    imported: dict[str, tuple[str, str]],
) -> None:
    """Add what a module defines, with OPERATIONS cut down to `used`, and what it imports, as
    (module, name or "")."""
    source = inspect.getsource(module)
    lines = source.splitlines()
    for node in ast.parse(source).body:
        match node:
            case ast.Import(names=names):
                imported |= {alias.name: (alias.name, "") for alias in names}
            case ast.ImportFrom(module=str(origin), names=names):
                imported |= {alias.name: (origin, alias.name) for alias in names}
            case ast.AnnAssign(target=ast.Name(id="OPERATIONS"), value=ast.Dict() as table):
                items = [
                    (k, v)
                    for k, v in zip(table.keys, table.values, strict=True)
                    if k and ast.literal_eval(k) in used
                ]
                parts = [[ast.get_source_segment(source, part) for part in item] for item in items]
                entries = [f"    {key}: {value}," for key, value in parts]
                text = "\n".join([lines[node.lineno - 1], *entries, "}"])
                found["OPERATIONS"] = Definition(
                    text, _names(node.annotation, *(value for _, value in items))
                )
            case (
                ast.FunctionDef(name=name)
                | ast.ClassDef(name=name)
                | ast.Assign(targets=[ast.Name(id=name)])
            ):
                first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
                while lines[first - 2].startswith("#"):
                    first -= 1
                text = "\n".join(lines[first - 1 : node.end_lineno])
                found[name] = Definition(text, _names(node))


def _names(*nodes: ast.AST) -> frozenset[str]:
    return frozenset(
        part.id for node in nodes for part in ast.walk(node) if isinstance(part, ast.Name)
    )
