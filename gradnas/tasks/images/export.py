"""Trained classifiers for use elsewhere: a torch program, ONNX, or one readable source file.

Legend: B batch, C channels, H height, W width, K classes. What is exported is the network in
evaluation mode, in float32, without its auxiliary head: images (B, C, H, W), normalised as in
training, to logits (B, K), for any B.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from gradnas.architectures.base import Architecture
from gradnas.config import JsonObject, build
from gradnas.export.programs import check_target, write_program
from gradnas.export.source import (
    NetworkSource,
    SourceOf,
    assignment,
    import_lines,
    literal,
    write_source,
)
from gradnas.spaces import ChainNetwork, ConvNetwork, ImageSpace
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
    data: JsonObject,
    genotype: Architecture,
    space: ImageSpace,
    source: SourceOf | None = None,
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
    images = _facts(data)
    # the file says "this genotype, at this size": another network must not get out under that name
    plain = _plain(network)
    _check_same(plain, images, genotype, space)
    if path.suffix == ".py":
        assert source is not None
        parts = source(
            genotype, space, in_channels=images.in_channels, num_classes=images.num_classes
        )
        return write_source(plain, path, lambda weights: _source_text(parts, images, weights))
    side = images.image_size
    x_BCHW = torch.zeros(2, images.in_channels, side, side)
    return write_program(
        plain,
        path,
        inputs=(x_BCHW,),
        batch_axes=(0,),
        input_names=("images",),
        output_names=("logits",),
        architecture=genotype,
        facts={"data": dataclasses.asdict(images)},
    )


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

_TAIL = '''

def load(path: str | Path = WEIGHTS) -> nn.Module:
    """The trained network in evaluation mode, on the CPU."""
    network = build()
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return network.eval()


def normalise(x_BCHW: Tensor) -> Tensor:
    """Pixels in [0, 1] as the network wants them."""
    mean_C11 = torch.tensor(MEAN, device=x_BCHW.device).view(-1, 1, 1)
    std_C11 = torch.tensor(STD, device=x_BCHW.device).view(-1, 1, 1)
    return (x_BCHW - mean_C11) / std_C11
'''

# of the head and the tail; the code of the network brings in the rest of torch that they name
_IMPORTS = {("pathlib", "Path"), ("torch", "")}


def _source_text(network: NetworkSource, images: ImageFacts, weights: str) -> str:
    """The text of the file.

    All that comes from data enters as literals, so that no name in it can become code.
    """
    head = _HEAD.format(
        version=__version__,
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
    return head + network.code + network.build + _TAIL
