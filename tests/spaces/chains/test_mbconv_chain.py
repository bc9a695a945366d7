"""The chain space against the numbers of the papers, and its supernet against its networks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gradnas import Chain, Choice, MBConvChain, Softmax, Stage
from gradnas.config import from_json, to_json
from gradnas.spaces import Space, make_divisible
from gradnas.spaces.base import tables_of

TINY = MBConvChain(
    stem_width=4,
    stem_stride=1,
    first_width=4,
    stages=((4, 2, 1), (6, 2, 2)),
    candidates=("mb1_k3", "mb2_k3", "identity", "zero"),
    last_width=8,
    image_size=8,
    dropout=0.2,
)


def weights(module):
    return sum(p.numel() for p in module.parameters())


def macs(network, size):
    """Multiply-adds of convolutions and linear layers for one image."""
    total = 0

    def count(module, _, output):
        nonlocal total
        per_output = module.weight[0].numel()
        total += output[0].numel() * per_output

    hooks = [
        m.register_forward_hook(count)
        for m in network.modules()
        if isinstance(m, (nn.Conv2d, nn.Linear))
    ]
    with torch.no_grad():
        network.eval()(torch.zeros(1, 3, size, size))
    for hook in hooks:
        hook.remove()
    return total


@pytest.mark.parametrize(
    ("name", "num_weights", "mega_macs", "dropout"),
    [
        ("proxyless_cpu", 4_361_648, 439.2, 0.2),
        ("proxyless_gpu", 7_119_848, 465.3, 0.3),
        ("proxyless_mobile", 4_080_512, 320.4, 0.1),
        ("proxyless_mobile_14", 6_857_568, 580.9, 0.3),
    ],
)
def test_the_published_networks(name, num_weights, mega_macs, dropout):
    network = MBConvChain.named(name).network(num_classes=1000)
    assert weights(network) == num_weights
    assert round(macs(network, 224) / 1e6, 1) == mega_macs
    assert network.dropout.p == dropout


def test_the_released_supernet():
    supernet = MBConvChain().supernet(num_classes=1000)
    assert weights(supernet.net) == 16_034_168
    assert [len(alpha) for alpha in supernet.alphas.values()].count(7) == 15
    assert sum(len(alpha) for alpha in supernet.alphas.values()) == 141
    sizes = [(block.size_in, block.size_out) for block in MBConvChain().blocks if block.stride == 2]
    assert sizes == [(112, 56), (56, 28), (28, 14), (14, 7)]


@pytest.mark.parametrize(
    ("code", "number"), [("11111221", 2_181_386), ("00011110", 1_118_378), ("02012100", 890_666)]
)
def test_nas_bench_macro(code, number):
    space = MBConvChain.named("nas-bench-macro")
    assert weights(space.network(code, num_classes=10)) == number
    chain = space.decision(code)
    assert space.code(chain) == code and space.decision(chain.to_text()) == chain
    assert chain.blocks[0] == ("identity", "mb3_k3", "mb6_k5")[int(code[0])]


def test_initialisation():
    torch.manual_seed(0)
    network = MBConvChain.named("nas-bench-macro").network("12222222")
    depthwise = network.blocks[3].operation[3]
    assert depthwise.groups == depthwise.out_channels > 1
    assert depthwise.weight.std().item() == pytest.approx(
        (2 / (25 * depthwise.out_channels)) ** 0.5, rel=0.05
    )
    assert network.classifier.bias.abs().max() == 0
    assert network.classifier.weight.abs().max() <= 1280**-0.5
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(m.eps == 1e-3 and m.momentum == 0.1 and (m.weight == 1).all() for m in norms)
    assert not any(m.bias is not None for m in network.modules() if isinstance(m, nn.Conv2d))


@pytest.mark.parametrize("width_mult", [0.35, 0.5, 1.12, 1.4])
def test_make_divisible(width_mult):
    for width in (16, 24, 32, 40, 80, 96, 192, 320):
        n = make_divisible(width * width_mult)
        assert n % 8 == 0 and n >= 8 and n >= 0.9 * width * width_mult
    assert MBConvChain(width_mult=width_mult).shape.last_width == max(
        1280, make_divisible(1280 * width_mult)
    )


def test_supernet_networks_and_alphas_agree():
    """Any chain: the one-hot mixture is the derived network with the supernet's weights, in eval
    and train mode."""
    torch.manual_seed(0)
    supernet = TINY.supernet(num_classes=5).double()
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    for _ in range(8):
        chain = TINY.random_decision(generator)
        derived = supernet.derived(chain)
        with torch.no_grad():
            assert torch.equal(
                supernet.eval()(x, draw=supernet.one_hot_draw(chain)), derived.eval()(x)
            )
        for block in TINY.blocks:
            alpha = supernet.alphas[block.name].data
            alpha.zero_()[
                block.candidates.index(dict(zip(names(), chain.blocks, strict=True))[block.name])
            ] = 1.0
        assert supernet.decide() == chain == TINY.derive(tables_of(supernet))
        removed = [o for o, b in zip(chain.blocks, TINY.blocks, strict=True) if b.keeps_shape]
        assert supernet.skip_count(chain) == sum(o in ("zero", "identity") for o in removed)
        fresh = supernet.derived(chain, "fresh")
        assert fresh.state_dict().keys() == derived.state_dict().keys()
    assert {type(m).__name__ for m in supernet.modules() if isinstance(m, Choice)} == {"Choice"}


def names():
    return [block.name for block in TINY.blocks]


def test_a_block_with_one_candidate_is_fixed():
    space = MBConvChain(
        stages=[Stage(8, 3)],
        candidates=(("mb3_k3",), ("mb3_k3", "zero"), ("zero",)),
        first_width=None,
        stem_width=8,
    )
    supernet = space.supernet()
    assert list(supernet.alphas) == ["block02"]
    derived = supernet.derived("mb3_k3 zero zero")
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(
        derived.eval()(x), supernet.eval()(x, draw=supernet.one_hot_draw("mb3_k3 zero zero"))
    )
    with pytest.raises(ValueError, match="nothing to search"):
        MBConvChain(stages=[Stage(8, 1)], candidates=("mb3_k3",)).supernet()


@pytest.mark.parametrize(
    "space", [MBConvChain(), TINY, *map(MBConvChain.named, MBConvChain.names())], ids=str
)
def test_configuration_files_hold_every_space(space):
    assert from_json(Space, to_json(space)) == space
    assert isinstance(hash(space), int)


def test_odd_sizes_and_grey_images():
    space = MBConvChain.named("nas-bench-macro")
    for code in ("00000000", "12121212"):
        assert space.network(code, num_classes=3, in_channels=1)(
            torch.randn(2, 1, 27, 27)
        ).shape == (2, 3)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: MBConvChain(candidates=("mb3_k3", "mb6k3")),
            "unknown operation 'mb6k3' .did you mean 'mb6_k3'",
        ),
        (lambda: MBConvChain(candidates=("mb3_k3", "zreo")), "did you mean 'zero'"),
        (lambda: MBConvChain(candidates="mb3_k3"), "sequence of operations"),
        (lambda: MBConvChain(candidates=("mb3_k3", "mb3_k3")), "offers a candidate twice"),
        (lambda: MBConvChain(candidates=("zero",)), "block 1 of stage 1 has no candidates"),
        (
            lambda: MBConvChain(candidates=(("mb3_k3",),)),
            "one tuple for each of the 21 blocks; got 1",
        ),
        (
            lambda: MBConvChain(stages=[Stage(24, 1, 2)], candidates=(("mb3_k3", "zero"),)),
            "block 1 of stage 1 turns 16 channels of 112x112 into 24 of 56x56: "
            "'zero' would leave nothing",
        ),
        (lambda: MBConvChain(activation="rellu"), "did you mean 'relu'"),
        (lambda: MBConvChain(width_mult=0), "width_mult must be a number above 0"),
        (
            lambda: MBConvChain(stages=[Stage(24, 0)]),
            "blocks must be a whole number of at least 1, not 0",
        ),
        (lambda: MBConvChain(stages=[(24, 1, 3)]), "stride must be 1 or 2, not 3"),
        (lambda: MBConvChain(stages=()), "stages must be"),
        (lambda: MBConvChain(dropout=1.0), "dropout must be in"),
        (lambda: MBConvChain.named("nas-bench-makro"), "did you mean 'nas-bench-macro'"),
        (lambda: MBConvChain().network(), "which chain"),
        (lambda: MBConvChain().network(3), "not a int"),
        (
            lambda: MBConvChain().network("mb3_k3 | zero"),
            r"stages of \[4, 4, 4, 4, 4, 1\] blocks, not of \[1, 1\]",
        ),
        (lambda: MBConvChain.named("nas-bench-macro").network("1111"), "has 8 digits, not 4"),
        (
            lambda: MBConvChain.named("nas-bench-macro").network("11111113"),
            "digit 8 .* is 3, .*0 to 2",
        ),
        (
            lambda: MBConvChain.named("nas-bench-macro").code(Chain.of(["mb6_k3"] * 8, [2, 3, 3])),
            "'mb6_k3' is no candidate of block01",
        ),
        (
            lambda: (
                MBConvChain.named("nas-bench-macro")
                .supernet()
                .derived(Chain.of(["mb6_k7"] * 8, [2, 3, 3]))
            ),
            "offers no 'mb6_k7' for block01",
        ),
        (lambda: MBConvChain(chain="zero " * 21), "not of"),
    ],
)
def test_refusals(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


def test_derive_takes_the_first_of_equal_operations():
    tables = {block.name: torch.zeros(len(block.candidates)) for block in TINY.blocks}
    assert set(TINY.derive(tables, Softmax()).blocks) == {"mb1_k3"}
