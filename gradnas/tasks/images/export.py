"""Trained classifiers for use elsewhere: a torch program, ONNX, or one readable source file.

Legend: B batch, C channels, H height, W width, K classes. What is exported is the network in
evaluation mode, in float32, without its auxiliary head: images (B, C, H, W) to logits (B, K), for
any B. Images are normalised as in training before they go in, or, where that is asked for, inside.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from gradnas.architectures.base import Architecture
from gradnas.config import JsonObject, build, check_numbers
from gradnas.export.programs import METADATA, check_target, write_program
from gradnas.export.source import (
    NetworkSource,
    SourceOf,
    assignment,
    import_lines,
    literal,
    write_source,
)
from gradnas.spaces import ChainNetwork, ConvNetwork, ImageSpace, NasBench201Network
from gradnas.spaces.copied import copied
from gradnas.version import __version__


@dataclass(frozen=True)
class ImageFacts:
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
        check_numbers(self)
        if not len(self.mean) == len(self.std) == self.in_channels:
            raise ValueError(
                f"mean and std must have one number for each of the {self.in_channels} channels"
            )
        if not all(map(math.isfinite, (*self.mean, *self.std))) or min(self.std) <= 0:
            raise ValueError("mean and std must be finite, and std above 0")
        if Path(self.name).is_absolute():  # a folder of the machine that trained
            object.__setattr__(self, "name", Path(self.name).name)


class Normalised(nn.Module):
    """A classifier of normalised images as one of pixels in [0, 1].

    Args:
        mean, std: of each channel, of pixels in [0, 1].
    """

    mean_C11: Tensor
    std_C11: Tensor

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.network = network
        mean_C = torch.tensor(mean, dtype=torch.float32, device="cpu")
        std_C = torch.tensor(std, dtype=torch.float32, device="cpu")
        self.register_buffer("mean_C11", mean_C.view(-1, 1, 1))
        self.register_buffer("std_C11", std_C.view(-1, 1, 1))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.network((x_BCHW - self.mean_C11) / self.std_C11)


def export_network(
    network: nn.Module,
    path: str | Path,
    *,
    data: JsonObject,
    genotype: Architecture,
    space: ImageSpace,
    source: SourceOf | None = None,
    normalised: bool = False,
) -> list[Path]:
    """Write a network in the form that the ending of `path` names; the network is not changed.

    - `.pt2`: a torch program, for `torch.export.load(path).module()`.
    - `.onnx`: needs the extra `onnx`; input `images`, output `logits`.
    - `.py`: source that needs torch alone, with its weights in a file of the same name that ends in
      `.pt`.

    Files are written under a temporary name and renamed, the weights before the source.

    Args:
        data: the entries of `gradnas.data.describe`; they go into the file.
        genotype, space: what the network was built from.
        source: how its family writes source (`Family.source`); for `.py` alone.
        normalised: take pixels in [0, 1] and normalise them inside; else what goes in has been
            normalised with `mean` and `std` of `data`.

    Returns:
        The files written.

    Raises:
        ValueError: another ending; a folder that is missing or not writable; a missing extra;
            incomplete `data`; a network that is not that of genotype and space; for `.py` an
            operation of the user's own, or a file of the weights' name that no export wrote.
    """
    path = Path(path)
    check_target(path)
    if not isinstance(network, (ConvNetwork, ChainNetwork, NasBench201Network)):
        raise ValueError(
            "only a ConvNetwork, a ChainNetwork or a NasBench201Network can be exported, "
            f"not a {type(network).__name__}"
        )
    images = _facts(data)
    # the file says "this genotype, at this size": another network must not get out under that name
    plain = _plain(network)
    _check_same(plain, images, genotype, space)
    if path.suffix == ".py":
        assert source is not None
        parts = source(
            genotype, space, in_channels=images.in_channels, num_classes=images.num_classes
        )
        return write_source(
            plain, path, lambda weights: _source_text(parts, images, weights, normalised)
        )
    side = images.image_size
    x_BCHW = torch.zeros(2, images.in_channels, side, side)
    program: nn.Module = plain
    if normalised:
        program = Normalised(plain, images.mean, images.std).eval()
    return write_program(
        program,
        path,
        inputs=(x_BCHW,),
        batch_axes=(0,),
        input_names=("images",),
        output_names=("logits",),
        architecture=genotype,
        facts={"data": dataclasses.asdict(images), "normalised": normalised},
    )


def export_sentences(data: JsonObject, path: Path, *, normalised: bool) -> list[str]:
    """What goes into an exported network, and what comes out.

    Args:
        data, normalised: as they were given to `export_network`.
        path: of the file.
    """
    images = _facts(data)
    shape = f"(B, {images.in_channels}, {images.image_size}, {images.image_size})"
    goes_in = f"in: images {shape}, float32, "
    if normalised:
        goes_in += "pixels in [0, 1]; mean and std are inside"
    else:
        where = "MEAN and STD in the file, as by its normalise()"
        if path.suffix != ".py":
            where = f"mean and std under data in its metadata ({METADATA})"
        goes_in += f"pixels in [0, 1] normalised as (x - mean) / std, with {where}"
        goes_in += "; --normalised puts that inside"
    return [goes_in, f"out: logits (B, {images.num_classes}), in the order of class_names"]


def _facts(data: JsonObject) -> ImageFacts:
    known = {field.name for field in dataclasses.fields(ImageFacts)}
    described = {name: value for name, value in data.items() if name in known}
    return build(ImageFacts, described, "data")


def _plain(network: nn.Module) -> nn.Module:
    """A copy in the form that is exported."""
    plain = copied(network)
    if isinstance(plain, ConvNetwork):
        plain.auxiliary_head = None
    return plain.to("cpu", torch.float32, memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]


def _check_same(
    network: nn.Module, images: ImageFacts, genotype: Architecture, space: ImageSpace
) -> None:
    """ValueError unless `space` builds the same function from `genotype`."""
    with torch.random.fork_rng(devices=[]):
        twin = space.network(genotype, images.num_classes, images.in_channels).eval()
    ours = _shapes(network)
    others = _shapes(twin)
    for name in {**ours, **others}:
        if ours.get(name) != others.get(name):
            raise ValueError(
                "the network is not the one of this genotype, space and data: "
                f"tensor {name!r} differs"
            )
    twin.load_state_dict(network.state_dict())
    # pooling and identities have no tensors to tell them apart, but their outputs do
    shape = (2, images.in_channels, images.image_size, images.image_size)
    x_BCHW = torch.randn(shape, generator=torch.Generator().manual_seed(0), device="cpu")
    with torch.no_grad():
        logits_BK = network(x_BCHW)
        expected_BK = twin(x_BCHW)
    if not torch.allclose(logits_BK, expected_BK, rtol=1e-4, atol=1e-5, equal_nan=True):
        raise ValueError("the network is not the one of this genotype and space: its logits differ")


def _shapes(network: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in network.state_dict().items()}


# ---- source --------------------------------------------------------------------------------------

_HEAD = '''"""An image classifier from an architecture search, written by gradnas {version}.

It needs torch alone:

    network = load()  # in evaluation mode, with the weights in the .pt file beside this one
    logits_BK = network({call})  # images of {channels}x{size}x{size}, pixels in [0, 1]

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

_TAIL = '''

def load(path: str | Path = WEIGHTS) -> nn.Module:
    """The trained network in evaluation mode, on the CPU."""
    network = build()
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return {loaded}.eval()


def normalise(x_BCHW: Tensor) -> Tensor:
    """Pixels in [0, 1] as the network wants them."""
    mean_C11 = torch.tensor(MEAN, device=x_BCHW.device).view(-1, 1, 1)
    std_C11 = torch.tensor(STD, device=x_BCHW.device).view(-1, 1, 1)
    return (x_BCHW - mean_C11) / std_C11
'''

_NORMALISED = '''

class Normalised(nn.Module):
    """The network on pixels in [0, 1]."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.network(normalise(x_BCHW))
'''

# of the head and the tail; the code of the network brings in the rest of torch that they name
_IMPORTS = {("pathlib", "Path"), ("torch", "")}


def _source_text(network: NetworkSource, images: ImageFacts, weights: str, normalised: bool) -> str:
    """The text of the file.

    All that comes from data enters as literals, so that no name in it can become code.
    """
    head = _HEAD.format(
        version=__version__,
        call="x_BCHW" if normalised else "normalise(x_BCHW)",
        channels=images.in_channels,
        size=images.image_size,
        imports=import_lines(network.imports | _IMPORTS),
        weights=literal(weights),
        data=literal(images.name),
        mean=assignment("MEAN", "()", map(repr, images.mean)),
        std=assignment("STD", "()", map(repr, images.std)),
        class_names=assignment("CLASS_NAMES", "()", map(literal, images.class_names)),
        architecture=network.architecture,
    )
    tail = _TAIL.format(loaded="Normalised(network)" if normalised else "network")
    if normalised:
        tail += _NORMALISED
    return head + network.code + network.build + tail
