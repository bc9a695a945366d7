"""Readable source of networks of chains."""

from __future__ import annotations

from gradnas.architectures.chain import Chain
from gradnas.export.source import NetworkSource, assignment, literal, network_code
from gradnas.spaces import ChainNetwork, MBConvChain
from gradnas.spaces.chains import mbconv_network
from gradnas.spaces.chains.mbconv_network import chain_block

_COMMENT = """\
# the blocks: operation, channels in, channels out, stride; mbE_kK has expansion E and kernel K"""

_BUILD = '''

def build() -> nn.Module:
    """The network with fresh weights."""
    return ChainNetwork(
        [
{blocks}
        ],
        channels={channels},
        stem_width={stem},
        stem_stride={space.stem_stride},
        last_width={space.shape.last_width},
        num_classes={num_classes},
        in_channels={in_channels},
        activation="{space.activation}",
        dropout={space.dropout},
    )
'''


def chain_source(
    chain: Chain, space: MBConvChain, in_channels: int, num_classes: int
) -> NetworkSource:
    """The blocks, and the classes and functions of their network."""
    rows = []
    for operation, block in zip(chain.blocks, space.blocks, strict=True):
        rows.append(
            f"({literal(operation)}, {block.channels_in}, {block.channels_out}, {block.stride})"
        )
    stem = space.shape.stem_width
    blocks = []
    if space.first_width is not None:
        # The first block is not searched: expansion 1, kernel 3.
        first = space.shape.first_width
        blocks.append(f'            MBConv({stem}, {first}, 1, 3, 1, "{space.activation}"),')
    blocks.append(f'            *(chain_block(*block, "{space.activation}") for block in BLOCKS),')
    roots = {ChainNetwork.__name__, chain_block.__name__}
    code, imports = network_code([mbconv_network], roots, set())
    build = _BUILD.format(
        space=space,
        blocks="\n".join(blocks),
        stem=stem,
        channels=space.blocks[-1].channels_out,
        in_channels=in_channels,
        num_classes=num_classes,
    )
    architecture = f"{_COMMENT}\n{assignment('BLOCKS', '[]', rows)}"
    return NetworkSource(architecture, code, imports, build)
