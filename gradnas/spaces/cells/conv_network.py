"""Networks of convolutional cells with every choice made: plain torch modules.

Legend: B batch, C channels, H height, W width, K classes. This file needs torch and the operations
alone: exported model files are made of its source.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from gradnas.spaces.operations import OPERATIONS, FactorizedReduce, Factory, relu_conv_bn

# (operation, predecessor); pairs 2i and 2i+1 feed intermediate node i
Edges = Sequence[tuple[str, int]]
# the same with a list of any length for each node
EdgesByNode = Sequence[Edges]


def drop_path(x_BCHW: Tensor, probability: float | Tensor) -> Tensor:
    """Zero whole samples with `probability` and scale the rest by 1 / (1 - probability)."""
    return x_BCHW * kept_paths(x_BCHW, probability)


def kept_paths(x_BCHW: Tensor, probability: float | Tensor) -> Tensor:
    """The factor of each sample, `(B, 1, 1, 1)`."""
    keep = 1.0 - probability
    size = (x_BCHW.shape[0], 1, 1, 1)
    mask = torch.empty(size, device=x_BCHW.device, dtype=x_BCHW.dtype).bernoulli_(keep)
    return mask / keep


def by_node(edges: Edges | EdgesByNode) -> list[Edges]:
    """The edges into every node, from either form."""
    if isinstance(edges[0][0], str):
        return [edges[k : k + 2] for k in range(0, len(edges), 2)]  # type: ignore[misc]
    return list(edges)  # type: ignore[arg-type]


def _state(x: Tensor) -> Tensor | int:
    """What a change in place changes; a tensor of inference mode counts none: a copy of it."""
    return x.clone() if x.is_inference() else x._version


def _is_changed(x: Tensor, before: Tensor | int) -> bool:
    if isinstance(before, Tensor):
        return not torch.equal(x, before)
    return x._version != before


class ConvCellNetwork(nn.Module):
    """A cell: two inputs, nodes that each add two operations, and their concatenation.

    Of edges that are listed node by node a node adds as many operations as it has edges, and drop
    path drops the sum of a node, as the authors of such cells do (FairDARTS, arXiv 1911.12126);
    else it drops the operations one by one, but for identities, as in DARTS.
    """

    def __init__(
        self,
        edges: Edges | EdgesByNode,
        concat: Sequence[int],
        channels_in: tuple[int, int],
        channels: int,
        reduction: bool,
        reduction_before: bool,
        operations: Mapping[str, Factory],
    ) -> None:
        super().__init__()
        before, last = channels_in
        if reduction_before:
            # The output of the cell before the last is twice as large as that of the last.
            self.preprocess0 = FactorizedReduce(before, channels, affine=True)
        else:
            self.preprocess0 = relu_conv_bn(before, channels, affine=True)
        self.preprocess1 = relu_conv_bn(last, channels, affine=True)
        nodes = by_node(edges)
        self.drops_nodes = not isinstance(edges[0][0], str)
        self.inputs_per_node = tuple(len(node) for node in nodes)
        self.predecessors = tuple(predecessor for node in nodes for _, predecessor in node)
        self.concat = tuple(concat)
        self._channels = channels
        self._labels: list[str] = []  # for errors
        self._strides: list[int] = []
        self._is_own: list[bool] = []  # not one of the built-in operations
        self.operations = nn.ModuleList()
        for number, node in enumerate(nodes, start=2):
            for name, predecessor in node:
                stride = 2 if reduction and predecessor < 2 else 1
                self._labels.append(f"{name!r} of node {number} on state {predecessor}")
                self._strides.append(stride)
                self._is_own.append(operations[name] is not OPERATIONS.get(name))
                self.operations.append(operations[name](channels, stride, True))

    def forward(
        self, before_BCHW: Tensor, last_BCHW: Tensor, drop_probability: float | Tensor = 0.0
    ) -> Tensor:
        # A tensor stands for a probability that changes under a compiled network: its value is not
        # looked at here.
        dropping = self.training and (
            isinstance(drop_probability, Tensor) or drop_probability > 0.0
        )
        states = [self.preprocess0(before_BCHW), self.preprocess1(last_BCHW)]
        first = 0
        # As in the original, an identity is never dropped.
        of_each = drop_probability if dropping and not self.drops_nodes else None
        for count in self.inputs_per_node:
            total: Tensor | None = None
            for k in range(first, first + count):
                total = self._added(total, k, states[self.predecessors[k]], of_each)
            assert total is not None
            if dropping and self.drops_nodes:
                total = drop_path(total, drop_probability)
            states.append(total)
            first += count
        return torch.cat([states[i] for i in self.concat], dim=1)

    def _added(
        self,
        total: Tensor | None,
        k: int,
        x_BCHW: Tensor,
        drop_probability: float | Tensor | None,
    ) -> Tensor:
        """What a node has so far, and one more operation."""
        operation = self.operations[k]
        # A user's operation may write into what the others read.
        is_own = self._is_own[k] and not torch.compiler.is_compiling()
        before = _state(x_BCHW) if is_own else None
        part = operation(x_BCHW)
        if before is not None and _is_changed(x_BCHW, before):
            raise ValueError(
                f"the operation {self._labels[k]} ({type(operation).__name__}) changes its "
                "input in place, which the other operations read too: give it a copy of "
                "its input, or operations that are not in place (inplace=False)"
            )
        self._check(k, x_BCHW, part)
        if drop_probability is not None and type(operation) is not nn.Identity:
            part = drop_path(part, drop_probability)
        return part if total is None else total + part

    def is_own(self, k: int) -> bool:
        """Whether an operation is not one of the built-in ones."""
        return self._is_own[k]

    def _check(self, k: int, x_BCHW: Tensor, part: Tensor) -> None:
        """ValueError for an operation of another width or stride: torch might stretch it."""
        B, _, H, W = x_BCHW.shape
        stride = self._strides[k]
        size = (B, self._channels, (H - 1) // stride + 1, (W - 1) // stride + 1)
        if part.shape != size:
            raise ValueError(
                f"the operation {self._labels[k]} gives the shape {tuple(part.shape)}, where the "
                f"cell needs {size}: its factory was asked for channels={self._channels} and "
                f"stride={stride}"
            )


class AuxiliaryHead(nn.Module):
    """A second classifier after two thirds of the cells, for training only (DARTS, A.2)."""

    def __init__(self, channels: int, num_classes: int, stem: str) -> None:
        super().__init__()
        # 8x8 maps on CIFAR (stride 3), 7x7 on ImageNet (stride 2): both pool to 2x2. The ImageNet
        # head of the original leaves out its last BatchNorm by oversight and keeps it out for
        # consistency with the published numbers.
        self.map_size = 8 if stem == "cifar" else 7
        layers: list[nn.Module] = [
            nn.ReLU(),
            nn.AvgPool2d(5, stride=3 if stem == "cifar" else 2, padding=0, count_include_pad=False),
            nn.Conv2d(channels, 128, 1, bias=False),
            nn.BatchNorm2d(128),
            nn.ReLU(),
            nn.Conv2d(128, 768, 2, bias=False),
        ]
        layers += [nn.BatchNorm2d(768), nn.ReLU()] if stem == "cifar" else [nn.ReLU()]
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(768, num_classes)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        if x_BCHW.shape[2] != self.map_size or x_BCHW.shape[3] != self.map_size:
            raise ValueError(
                f"the auxiliary head needs maps of {self.map_size}x{self.map_size} pixels, got "
                f"{x_BCHW.shape[2]}x{x_BCHW.shape[3]}: it fits 32x32 images with the cifar stem "
                "and 224x224 images with the imagenet stem; build the network with auxiliary=False "
                "(--no-auxiliary)"
            )
        return self.classifier(self.features(x_BCHW).flatten(1))


class ConvNetwork(nn.Module):
    """The network of a genotype: stem, cells (at one and two thirds reductions), pool, classifier.

    In training mode with an auxiliary head the output is `(logits_BK, auxiliary_logits_BK)`,
    otherwise `logits_BK`. `drop_path_probability` is 0 until a training program raises it; a scalar
    tensor in a network that is compiled, as `torch.compile` would compile again for each value of a
    plain number.
    """

    def __init__(
        self,
        normal: Edges | EdgesByNode,
        normal_concat: Sequence[int],
        reduce: Edges | EdgesByNode,
        reduce_concat: Sequence[int],
        channels: int,
        cells: int,
        num_classes: int,
        in_channels: int = 3,
        stem: str = "cifar",
        auxiliary: bool = False,
        operations: Mapping[str, Factory] = OPERATIONS,
    ) -> None:
        super().__init__()
        self.drop_path_probability: float | Tensor = 0.0
        self.auxiliary_index = 2 * cells // 3
        if stem == "imagenet":
            stem_channels = channels
            self.stem0, self.stem1 = imagenet_stem(in_channels, stem_channels)
        else:
            stem_channels = 3 * channels
            self.stem = cifar_stem(in_channels, stem_channels)

        self.cells = nn.ModuleList()
        channels_before = stem_channels
        channels_last = stem_channels
        # The second stem of ImageNet halves the maps, as a reduction cell would.
        reduction_before = stem == "imagenet"
        auxiliary_channels = 0
        for index in range(cells):
            reduction = index in (cells // 3, 2 * cells // 3)
            if reduction:
                channels = 2 * channels
            edges = reduce if reduction else normal
            concat = reduce_concat if reduction else normal_concat
            cell = ConvCellNetwork(
                edges,
                concat,
                (channels_before, channels_last),
                channels,
                reduction,
                reduction_before,
                operations,
            )
            self.cells.append(cell)
            channels_before = channels_last
            channels_last = len(concat) * channels
            reduction_before = reduction
            if index == self.auxiliary_index:
                auxiliary_channels = channels_last

        self.auxiliary_head: AuxiliaryHead | None = None
        if auxiliary:
            self.auxiliary_head = AuxiliaryHead(auxiliary_channels, num_classes, stem)
        self.classifier = nn.Linear(channels_last, num_classes)

    def forward(self, x_BCHW: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        if hasattr(self, "stem"):
            before = self.stem(x_BCHW)
            last = before
        else:
            before = self.stem0(x_BCHW)
            last = self.stem1(before)
        auxiliary = None
        for index, cell in enumerate(self.cells):
            output = cell(before, last, self.drop_path_probability)
            before = last
            last = output
            if self.training and self.auxiliary_head is not None and index == self.auxiliary_index:
                auxiliary = self.auxiliary_head(last)
        logits_BK = self.classifier(last.mean(dim=(2, 3)))
        return logits_BK if auxiliary is None else (logits_BK, auxiliary)


def cifar_stem(in_channels: int, channels: int) -> nn.Sequential:
    """3x3 convolution and BatchNorm (affine in the search too), full resolution."""
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
    )


def imagenet_stem(in_channels: int, channels: int) -> tuple[nn.Sequential, nn.Sequential]:
    """Two stems, of stride 4 and 8 in all: 224 -> 56 (first cell's older input) -> 28 (newer)."""
    first = nn.Sequential(
        nn.Conv2d(in_channels, channels // 2, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(channels // 2),
        nn.ReLU(),
        nn.Conv2d(channels // 2, channels, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(channels),
    )
    second = nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(channels, channels, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(channels),
    )
    return first, second
