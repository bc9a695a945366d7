"""Loading the original authors' weights, against a functional network that reads the tensors by
their original names.

The oracle is written from the description of the original repository (DARTS, arXiv 1806.09055, and
its code's layout): it has no modules, and knows nothing of gradnas but the edges and concats of a
genotype.
"""

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F

import gradnas
from gradnas import ConvCell, Genotype
from gradnas.spaces.original import (
    load_original_weights,
    original_names,
)

CONV_NAMES = ("NASNet", "AmoebaNet", "DARTS_V1", "DARTS_V2", "PC_DARTS_cifar", "PC_DARTS_image")
CIFAR_RELEASE_PARAMS = 3_349_342  # DARTS_V2, C 36, L 20, ten classes, without the auxiliary head


# ---- the oracle ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Original:
    """A derived network of the original repository: its tensors' shapes by name, and its forward
    pass."""

    normal: tuple
    normal_concat: tuple
    reduce: tuple
    reduce_concat: tuple
    channels: int
    layers: int
    classes: int
    imagenet: bool
    auxiliary: bool

    def plan(self):
        """For each cell: reduction or not, edges, concat, channels, inputs' channels, reduction
        before or not."""
        C = self.channels
        before, last = (C, C) if self.imagenet else (3 * C, 3 * C)
        halved = self.imagenet
        cells = []
        for i in range(self.layers):
            reduction = i == self.layers // 3 or i == 2 * self.layers // 3
            if reduction:
                C *= 2
            edges, concat = (
                (self.reduce, self.reduce_concat)
                if reduction
                else (self.normal, self.normal_concat)
            )
            cells.append((reduction, edges, concat, C, before, last, halved))
            before, last, halved = last, C * len(concat), reduction
        return cells, last

    def shapes(self):
        """Name -> shape, in the original's order, without `num_batches_tracked`."""
        table = {}

        def bn(name, C):
            for part in ("weight", "bias", "running_mean", "running_var"):
                table[f"{name}.{part}"] = (C,)

        def conv(name, out, inp, kh, kw=None):
            table[f"{name}.weight"] = (out, inp, kh, kw or kh)

        def factorized(name, inp, out):
            conv(f"{name}.conv_1", out // 2, inp, 1)
            conv(f"{name}.conv_2", out // 2, inp, 1)
            bn(f"{name}.bn", out)

        def relu_conv_bn(name, inp, out):
            conv(f"{name}.op.1", out, inp, 1)
            bn(f"{name}.op.2", out)

        C = self.channels
        if self.imagenet:
            conv("stem0.0", C // 2, 3, 3)
            bn("stem0.1", C // 2)
            conv("stem0.3", C, C // 2, 3)
            bn("stem0.4", C)
            conv("stem1.1", C, C, 3)
            bn("stem1.2", C)
        else:
            conv("stem.0", 3 * C, 3, 3)
            bn("stem.1", 3 * C)
        cells, last = self.plan()
        for i, (reduction, edges, concat, C, before, newer, halved) in enumerate(cells):
            (factorized if halved else relu_conv_bn)(f"cells.{i}.preprocess0", before, C)
            relu_conv_bn(f"cells.{i}.preprocess1", newer, C)
            for k, (op, source) in enumerate(edges):
                name = f"cells.{i}._ops.{k}"
                stride = 2 if reduction and source in (0, 1) else 1
                if op == "skip_connect" and stride == 2:
                    factorized(name, C, C)
                elif op.startswith(("sep_conv", "dil_conv")):
                    for at in (1, 5) if op.startswith("sep") else (1,):
                        conv(f"{name}.op.{at}", C, 1, int(op[-1]))
                        conv(f"{name}.op.{at + 1}", C, C, 1)
                        bn(f"{name}.op.{at + 2}", C)
                elif op == "conv_7x1_1x7":
                    conv(f"{name}.1", C, C, 1, 7)
                    conv(f"{name}.2", C, C, 7, 1)
                    bn(f"{name}.3", C)
            if self.auxiliary and i == 2 * self.layers // 3:
                aux_channels = C * len(concat)
        if self.auxiliary:
            conv("auxiliary_head.features.2", 128, aux_channels, 1)
            bn("auxiliary_head.features.3", 128)
            conv("auxiliary_head.features.5", 768, 128, 2)
            if not self.imagenet:
                bn("auxiliary_head.features.6", 768)
            table["auxiliary_head.classifier.weight"] = (self.classes, 768)
            table["auxiliary_head.classifier.bias"] = (self.classes,)
        table["classifier.weight"] = (self.classes, last)
        table["classifier.bias"] = (self.classes,)
        return table

    def state(self, dtype=torch.float32, seed=0):
        """Random tensors of these shapes, scaled so that activations stay near 1; random running
        statistics."""
        rng = torch.Generator().manual_seed(seed)
        state = {}
        for name, shape in self.shapes().items():
            value = torch.randn(shape, generator=rng, dtype=torch.float64)
            if name.endswith("running_var"):
                value = 0.5 + torch.rand(shape, generator=rng, dtype=torch.float64)
            elif name.endswith(("running_mean", "bias")):
                value = 0.2 * value
            elif len(shape) == 1:
                value = 1 + 0.2 * value
            else:
                value = value / value[0].numel() ** 0.5
            state[name] = value.to(dtype)
        return state

    def forward(self, sd, x, training):
        """Logits, and those of the auxiliary head (None in evaluation). In training `sd`'s
        statistics are updated."""

        def bn(name, x):
            mean, var = sd[f"{name}.running_mean"], sd[f"{name}.running_var"]
            return F.batch_norm(
                x, mean, var, sd[f"{name}.weight"], sd[f"{name}.bias"], training, 0.1, 1e-5
            )

        def conv(name, x, **kw):
            return F.conv2d(x, sd[f"{name}.weight"], None, **kw)

        def factorized(name, x):
            x = F.relu(x)
            y = torch.cat(
                [
                    conv(f"{name}.conv_1", x, stride=2),
                    conv(f"{name}.conv_2", x[:, :, 1:, 1:], stride=2),
                ],
                1,
            )
            return bn(f"{name}.bn", y)

        def relu_conv_bn(name, x):
            return bn(f"{name}.op.2", conv(f"{name}.op.1", F.relu(x)))

        def operation(name, op, x, stride):
            C = x.shape[1]
            if op == "max_pool_3x3":
                return F.max_pool2d(x, 3, stride, 1)
            if op == "avg_pool_3x3":
                return F.avg_pool2d(x, 3, stride, 1, count_include_pad=False)
            if op == "skip_connect":
                return x if stride == 1 else factorized(name, x)
            if op == "conv_7x1_1x7":
                x = conv(f"{name}.1", F.relu(x), stride=(1, stride), padding=(0, 3))
                return bn(f"{name}.3", conv(f"{name}.2", x, stride=(stride, 1), padding=(3, 0)))
            k = int(op[-1])
            if op.startswith("dil"):
                x = conv(
                    f"{name}.op.1", F.relu(x), stride=stride, padding=k - 1, dilation=2, groups=C
                )
                return bn(f"{name}.op.3", conv(f"{name}.op.2", x))
            for at, s in ((1, stride), (5, 1)):
                x = conv(f"{name}.op.{at}", F.relu(x), stride=s, padding=k // 2, groups=C)
                x = bn(f"{name}.op.{at + 2}", conv(f"{name}.op.{at + 1}", x))
            return x

        if self.imagenet:
            s0 = F.relu(bn("stem0.1", conv("stem0.0", x, stride=2, padding=1)))
            s0 = bn("stem0.4", conv("stem0.3", s0, stride=2, padding=1))
            s1 = bn("stem1.2", conv("stem1.1", F.relu(s0), stride=2, padding=1))
        else:
            s0 = s1 = bn("stem.1", conv("stem.0", x, padding=1))
        aux = None
        for i, (reduction, edges, concat, _, _, _, halved) in enumerate(self.plan()[0]):
            nodes = [(factorized if halved else relu_conv_bn)(f"cells.{i}.preprocess0", s0)]
            nodes.append(relu_conv_bn(f"cells.{i}.preprocess1", s1))
            for j in range(len(edges) // 2):
                total = 0
                for k in (2 * j, 2 * j + 1):
                    op, source = edges[k]
                    stride = 2 if reduction and source < 2 else 1
                    total = total + operation(f"cells.{i}._ops.{k}", op, nodes[source], stride)
                nodes.append(total)
            s0, s1 = s1, torch.cat([nodes[j] for j in concat], 1)
            if self.auxiliary and training and i == 2 * self.layers // 3:
                a = F.avg_pool2d(F.relu(s1), 5, 2 if self.imagenet else 3)
                a = F.relu(bn("auxiliary_head.features.3", conv("auxiliary_head.features.2", a)))
                a = conv("auxiliary_head.features.5", a)
                a = F.relu(a if self.imagenet else bn("auxiliary_head.features.6", a))
                aux = F.linear(
                    a.flatten(1),
                    sd["auxiliary_head.classifier.weight"],
                    sd["auxiliary_head.classifier.bias"],
                )
        pooled = F.adaptive_avg_pool2d(s1, 1).reshape(len(s1), -1)
        return F.linear(pooled, sd["classifier.weight"], sd["classifier.bias"]), aux


def make(genotype, channels, cells, *, imagenet=False, auxiliary=False, classes=7):
    """The oracle and our network of one genotype."""
    cells_of = (genotype.normal, genotype.normal_concat, genotype.reduce, genotype.reduce_concat)
    oracle = Original(*cells_of, channels, cells, classes, imagenet, auxiliary)
    space = ConvCell(channels=channels, cells=cells, stem="imagenet" if imagenet else "cifar")
    return oracle, space.network(genotype, num_classes=classes, auxiliary=auxiliary)


def poison(network):
    """NaN in every tensor, so that one that is not loaded shows in every output."""
    with torch.no_grad():
        for tensor in network.state_dict().values():
            tensor.fill_(float("nan") if tensor.is_floating_point() else 0)


def compare(oracle, network, x, *, tolerance, seed=0, training=True):
    """Loads the same tensors into both, and compares logits in evaluation, and logits and
    statistics in training."""
    state = oracle.state(x.dtype, seed)
    network.to(x.dtype)
    poison(network)
    load_original_weights(network, state)
    close = {"rtol": tolerance, "atol": tolerance}
    with torch.no_grad():
        expected, _ = oracle.forward(state, x, training=False)
        # Neither dead nor exploded, else the comparison says nothing.
        assert 0.1 < expected.std() < 100
        torch.testing.assert_close(network.eval()(x), expected, **close)
        if not training:
            return
        ours = network.train()(x)
        expected, expected_aux = oracle.forward(state, x, training=True)
    if oracle.auxiliary:
        ours, ours_aux = ours
        torch.testing.assert_close(ours_aux, expected_aux, **close)
    torch.testing.assert_close(ours, expected, **close)
    names, tensors = original_names(network), network.state_dict()
    for own, original in names.items():
        if "running_" in own:  # the training pass moved both
            torch.testing.assert_close(tensors[own], state[original], **close)


def images(batch, size, dtype=torch.float32):
    return torch.randn(
        batch, 3, size, size, generator=torch.Generator().manual_seed(1), dtype=dtype
    )


# ---- the same function ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONV_NAMES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-11)])
def test_cifar_networks(name, dtype, tolerance):
    oracle, network = make(Genotype.named(name), channels=8, cells=5, auxiliary=True)
    compare(oracle, network, images(3, 32, dtype), tolerance=tolerance)


@pytest.mark.parametrize("name", CONV_NAMES)
def test_imagenet_networks(name):
    oracle, network = make(Genotype.named(name), channels=4, cells=5, imagenet=True, auxiliary=True)
    compare(oracle, network, images(2, 224), tolerance=1e-5)
    compare(oracle, network, images(2, 224, torch.float64), tolerance=1e-11, seed=1)


@pytest.mark.parametrize("seed", range(4))
def test_random_cells(seed):
    rng = torch.Generator().manual_seed(seed)
    genotype = ConvCell(nodes=2 + seed).random_decision(rng)
    oracle, network = make(genotype, channels=4 + 2 * seed, cells=3 + seed)
    compare(oracle, network, images(2, 16, torch.float64), tolerance=1e-11)


def test_full_size_cifar():
    oracle, network = make(
        Genotype.named("DARTS_V2"), channels=36, cells=20, auxiliary=True, classes=10
    )
    params = [
        p.numel()
        for name, p in network.named_parameters()
        if not name.startswith("auxiliary_head.")
    ]
    assert sum(params) == CIFAR_RELEASE_PARAMS
    compare(oracle, network, images(1, 32, torch.float64), tolerance=1e-10, training=False)


def test_full_size_imagenet_names():
    oracle, network = make(
        Genotype.named("DARTS_V2"), 48, 14, imagenet=True, auxiliary=True, classes=1000
    )
    shapes = oracle.shapes()
    trained = {
        n: torch.Size(s).numel()
        for n, s in shapes.items()
        if not n.endswith(("running_mean", "running_var"))
    }
    # The published network and its auxiliary head.
    assert sum(trained.values()) == 4_718_752 + 1_260_776
    ours = network.state_dict()
    names = {
        own: original
        for own, original in original_names(network).items()
        if not own.endswith("tracked")
    }
    assert {original: tuple(ours[own].shape) for own, original in names.items()} == shapes
    assert set(original_names(network)) == set(ours)


# ---- what a file may look like -------------------------------------------------------------------


def small(auxiliary=False, imagenet=False):
    return make(
        Genotype.named("PC_DARTS_image"),
        channels=4,
        cells=3,
        auxiliary=auxiliary,
        imagenet=imagenet,
    )


@pytest.mark.parametrize("imagenet", [False, True])
def test_every_tensor_is_reached(imagenet):
    oracle, network = small(auxiliary=True, imagenet=imagenet)
    poison(network)
    load_original_weights(network, oracle.state())
    for name, tensor in network.state_dict().items():
        assert torch.isfinite(tensor).all(), name
    originals = list(original_names(network).values())
    assert len(set(originals)) == len(originals)


def test_counters_are_kept_when_absent_and_loaded_when_present():
    oracle, network = small()
    network.cells[0].preprocess1[2].num_batches_tracked.fill_(3)
    state = oracle.state()
    load_original_weights(network, state)
    assert network.cells[0].preprocess1[2].num_batches_tracked == 3
    state["cells.0.preprocess1.op.2.num_batches_tracked"] = torch.tensor(11)
    load_original_weights(network, state)
    assert network.cells[0].preprocess1[2].num_batches_tracked == 11
    assert network.cells[1].preprocess1[2].num_batches_tracked == 0


def test_data_parallel_prefix():
    oracle, network = small()
    state = oracle.state()
    load_original_weights(network, {f"module.{name}": tensor for name, tensor in state.items()})
    assert torch.equal(network.classifier.weight, state["classifier.weight"])


def test_tensors_are_converted_and_not_shared():
    oracle, network = small()
    state = oracle.state(torch.float64)
    load_original_weights(network, state)
    assert (
        network.classifier.weight.dtype == torch.float32 and network.classifier.weight.requires_grad
    )
    assert torch.equal(network.classifier.weight, state["classifier.weight"].float())
    state["classifier.weight"].zero_()
    assert network.classifier.weight.abs().sum() > 0


def test_public_name():
    assert getattr(gradnas, "load_original_weights", load_original_weights) is load_original_weights


# ---- refusals ------------------------------------------------------------------------------------


def without(state, *prefixes):
    return {name: tensor for name, tensor in state.items() if not name.startswith(prefixes)}


REFUSALS = {
    "one missing": (lambda s: without(s, "stem.0"), "the tensor 'stem.0.weight' is missing;"),
    "many missing": (
        lambda s: without(s, "cells.0."),
        r"'cells.0.preprocess0.op.1.weight' is missing \(and \d+ more",
    ),
    "surplus": (
        lambda s: {**s, "cells.9.a": s["stem.0.weight"]},
        "there is no place for the tensor 'cells.9.a';",
    ),
    "misshapen": (
        lambda s: {**s, "classifier.weight": torch.zeros(9, 32)},
        "the tensor 'classifier.weight' is 9x32, but the network's is 7x64;",
    ),
    "many misshapen": (
        lambda s: {**s, "classifier.weight": torch.zeros(9, 64), "classifier.bias": torch.zeros(9)},
        r"'classifier.weight' is 9x64, but the network's is 7x64 \(and 1 more like it\)",
    ),
    "whole numbers": (
        lambda s: {**s, "classifier.bias": torch.zeros(7, dtype=torch.int8)},
        "'classifier.bias' is 7 of int8, but the network's is 7;",
    ),
    "all three": (
        lambda s: {
            **without(s, "stem.0"),
            "x": torch.zeros(1),
            "classifier.bias": torch.tensor(0.0),
        },
        "'stem.0.weight' is missing; .* no place for the tensor 'x'; .* 'classifier.bias' is a "
        "single number",
    ),
    "partly prefixed": (
        lambda s: {
            ("module." if name == "stem.0.weight" else "") + name: t for name, t in s.items()
        },
        "'stem.0.weight' is missing; there is no place for the tensor 'module.stem.0.weight'",
    ),
    "empty": (lambda s: {}, "'stem.0.weight' is missing"),
    "checkpoint": (
        lambda s: {"epoch": 249, "state_dict": s},
        'a whole checkpoint, .* pass its entry "state_dict"',
    ),
    "no tensors": (lambda s: {**s, "epoch": 3}, "its entry 'epoch' is a int"),
    "no dictionary": (lambda s: list(s), "is needed, not a list"),
    "auxiliary head": (
        lambda s: {**s, "auxiliary_head.classifier.bias": torch.zeros(7)},
        "build the network with auxiliary=True",
    ),
    "meta": (
        lambda s: {name: tensor.to("meta") for name, tensor in s.items()},
        "holds no data: load it to",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals_leave_the_network_untouched(case):
    change, message = REFUSALS[case]
    oracle, network = small()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        load_original_weights(network, change(oracle.state()))
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_weights_without_the_auxiliary_head():
    oracle, network = small(auxiliary=True)
    with pytest.raises(
        ValueError, match="these weights have none: build the network with auxiliary=False"
    ):
        load_original_weights(network, without(oracle.state(), "auxiliary_head."))


def test_weights_of_another_size_name_what_must_agree():
    oracle, _ = make(Genotype.named("PC_DARTS_image"), channels=6, cells=3)
    _, network = small()
    with pytest.raises(
        ValueError, match=r"'stem.0.weight' is 18x3x3x3, but .* is 12x3x3x3.*genotype, channels"
    ):
        load_original_weights(network, oracle.state())


def test_our_own_names():
    _, network = small()
    with pytest.raises(
        ValueError, match=r"these names are gradnas's own: use network.load_state_dict"
    ):
        load_original_weights(network, network.state_dict())


def test_networks_of_another_class():
    state = small()[0].state()
    for network in (torch.nn.Linear(2, 2), ConvCell(channels=4, cells=3).supernet()):
        with pytest.raises(
            ValueError, match=f"RecurrentNetwork, not a {type(network).__name__}; build one with"
        ):
            load_original_weights(network, state)


def test_operations_that_the_original_lacks():
    own = {
        "mine": lambda channels, stride, affine: torch.nn.Conv2d(channels, channels, 3, stride, 1)
    }
    space = ConvCell(channels=4, cells=2, nodes=1, operations=own)
    network = space.network(Genotype.conv([("mine", 0), ("mine", 1)], [("mine", 0), ("mine", 1)]))
    with pytest.raises(
        ValueError, match=r"cells.0.operations.0 is not an operation of the original repository"
    ):
        load_original_weights(network, {})


# ---- the recurrent model -------------------------------------------------------------------------


def original_recurrent_state(hidden, vocabulary, nodes):
    """Random tensors under the original's names and shapes."""
    generator = torch.Generator().manual_seed(5)
    state = {"encoder.weight": torch.randn(vocabulary, hidden, generator=generator) * 0.3}
    state["decoder.weight"] = state["encoder.weight"].clone()
    state["decoder.bias"] = torch.randn(vocabulary, generator=generator)
    state["rnns.0._W0"] = torch.randn(2 * hidden, 2 * hidden, generator=generator) * 0.3
    for k in range(nodes):
        state[f"rnns.0._Ws.{k}"] = torch.randn(hidden, 2 * hidden, generator=generator) * 0.3
    return state


def original_recurrent_forward(state, genotype, tokens, hidden):
    """What the original model computes in eval mode, written from its description over its own
    tensors: one token after the other, one row of text after the other."""
    steps = {
        "tanh": torch.tanh,
        "relu": torch.relu,
        "sigmoid": torch.sigmoid,
        "identity": lambda x: x,
    }
    size = state["rnns.0._W0"].shape[1] // 2
    outputs = []
    for column in range(tokens.shape[1]):
        h, rows = hidden[column], []
        for token in tokens[:, column]:
            gate, candidate = (
                torch.cat([state["encoder.weight"][token], h]) @ state["rnns.0._W0"]
            ).split(size)
            states = [h + torch.sigmoid(gate) * (torch.tanh(candidate) - h)]
            for k, (name, predecessor) in enumerate(genotype.recurrent):
                before = states[predecessor]
                gate, candidate = (before @ state[f"rnns.0._Ws.{k}"]).split(size)
                states.append(before + torch.sigmoid(gate) * (steps[name](candidate) - before))
            h = sum(states[i] for i in genotype.concat) / len(genotype.concat)
            rows.append(
                torch.log_softmax(state["decoder.weight"] @ h + state["decoder.bias"], dim=0)
            )
        outputs.append((torch.stack(rows), h))
    return torch.stack([o for o, _ in outputs], dim=1), torch.stack([h for _, h in outputs])


@pytest.mark.parametrize("name", ["DARTS_V1_recurrent", "DARTS_V2_recurrent", "ENAS"])
def test_recurrent_log_probabilities_are_the_originals(name):
    """To 1e-5 in eval mode, also from a hidden state that is not zero, with a network that has
    dropout."""
    genotype = Genotype.named(name)
    dropout = gradnas.RecurrentDropout(
        output=0.75, state=0.25, input=0.75, embedding=0.2, words=0.1
    )
    space = gradnas.RecurrentCell(hidden=12, embedding=12, dropout=dropout)
    network = space.network(genotype, vocabulary=31)
    state = original_recurrent_state(12, 31, len(genotype.recurrent))
    gradnas.load_original_weights(network, state)
    tokens = torch.randint(31, (7, 3), generator=torch.Generator().manual_seed(1))
    hidden = torch.randn(3, 12, generator=torch.Generator().manual_seed(2))
    log_prob, after = network.eval()(tokens, hidden)
    expected, expected_after = original_recurrent_forward(state, genotype, tokens, hidden)
    assert (log_prob - expected).abs().max() < 1e-5 and (after - expected_after).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda s: s.pop("rnns.0._Ws.3"), r"the tensor 'rnns\.0\._Ws\.3' is missing"),
        (
            lambda s: s.update({"rnns.0._Ws.8": s["rnns.0._Ws.0"]}),
            r"no place for the tensor 'rnns\.0\._Ws\.8'",
        ),
        (
            lambda s: s.update({"decoder.bias": torch.zeros(30)}),
            "'decoder.bias' is 30, but the network's is 31",
        ),
        (
            lambda s: s.update({"decoder.weight": s["decoder.weight"] + 1}),
            "decoder.weight differs from encoder.weight",
        ),
    ],
)
def test_recurrent_weights_that_do_not_fit_are_refused(change, sentence):
    network = gradnas.RecurrentCell(hidden=12, embedding=12).network(
        Genotype.named("DARTS_V2_recurrent"), 31
    )
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    state = original_recurrent_state(12, 31, 8)
    change(state)
    with pytest.raises(ValueError, match=sentence):
        gradnas.load_original_weights(network, state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("auxiliary", [False, True])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_an_imagenet_head_with_one_batch_norm_more_is_left_out_with_a_word(auxiliary, prefix):
    """As P-DARTS, SGAS, DARTS- and others have it: the published head leaves that one out."""
    oracle, network = small(auxiliary=True, imagenet=True)
    state = oracle.state()
    for name in ("weight", "bias", "running_mean", "running_var"):
        state[f"auxiliary_head.features.6.{name}"] = torch.ones(768)
    if not auxiliary:
        _, network = small(auxiliary=False, imagenet=True)
    head = {
        name: tensor.clone()
        for name, tensor in network.state_dict().items()
        if name.startswith("auxiliary_head.")
    }
    given = {f"{prefix}{name}": tensor for name, tensor in state.items()}
    with pytest.warns(UserWarning, match="one BatchNorm more.*everything else was loaded"):
        load_original_weights(network, given)
    x_BCHW = images(2, 224)
    with torch.no_grad():
        expected, _ = oracle.forward(state, x_BCHW, training=False)
        torch.testing.assert_close(network.eval()(x_BCHW), expected, rtol=1e-5, atol=1e-5)
    for name, tensor in head.items():  # fresh, as it was
        assert torch.equal(network.state_dict()[name], tensor)


def test_a_cifar_head_has_that_batch_norm():
    oracle, network = small(auxiliary=True)
    load_original_weights(network, oracle.state())
