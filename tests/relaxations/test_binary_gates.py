"""Binary gates against the formulas written out, on chains, cells and one's own choices.

Legend: E edges, O operations.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from cases import TwoChoices, batch
from torch import nn

from gradnas import (
    AlphaOptimizer,
    BinaryGates,
    Choice,
    ConvCell,
    Draw,
    FirstOrder,
    Implicit,
    MBConvChain,
    Search,
    Unrolled,
    WeightOptimizer,
)
from gradnas.memory import SavedTensors
from gradnas.randomness import generator_for
from gradnas.search.sampling import WEIGHT_NOISE
from gradnas.spaces import ModuleSupernet

CHAIN = MBConvChain(
    stem_width=4,
    stem_stride=1,
    first_width=4,
    stages=((4, 3, 1), (6, 2, 2)),
    candidates=("mb1_k3", "mb2_k3", "mb2_k5", "zero", "identity"),
    last_width=8,
    image_size=8,
    dropout=0.3,
)


class Random(nn.Module):
    """Operations that draw random numbers, hold choices, and return nestings."""

    def __init__(self):
        super().__init__()
        inner = Choice({"tanh": nn.Tanh(), "linear": nn.Linear(4, 4)}, name="inner")
        self.stem = nn.Linear(3, 4)
        self.outer = Choice(
            {
                "dropout": nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)),
                "nested": nn.Sequential(nn.Dropout(0.5), inner, nn.BatchNorm1d(4)),
                "same": nn.Identity(),
            },
            name="outer",
        )
        self.cell = Choice({"gru": nn.GRU(4, 4), "rnn": nn.RNN(4, 4)}, name="cell")
        self.head = nn.Linear(8, 5)

    def forward(self, x_BCHW):
        x = self.stem(x_BCHW.mean(dim=(2, 3)))
        x = F.relu(self.outer(x), inplace=True)
        y, h = self.cell(x[None])
        return self.head(torch.cat([y[0], h[0]], dim=1))


def supernets():
    torch.manual_seed(0)
    cell = ConvCell(channels=4, cells=3, nodes=2)
    return {
        "chain": CHAIN.supernet(num_classes=5),
        "choices": ModuleSupernet(TwoChoices(dropout=0.3)),
        "random": ModuleSupernet(Random()),
        "cell": cell.supernet(num_classes=5, fused=False),
        "fused cell": cell.supernet(num_classes=5),
    }


SUPERNETS = supernets()
X, Y = batch(0, dtype=torch.float64, side=8)


def prepared(name):
    """A supernet in float64 with alphas that are not almost equal."""
    supernet = copy.deepcopy(SUPERNETS[name]).double()
    with torch.no_grad():
        for k, alpha in enumerate(supernet.alphas.values()):
            alpha.copy_(
                torch.randn(alpha.shape, generator=generator_for(7, k), dtype=torch.float64)
            )
    return supernet


def loss_of(supernet, draw):
    torch.manual_seed(3)
    return F.cross_entropy(supernet(X, draw=draw), Y)


def gate_gradients(supernet, draw):
    """dL/dg of every gate, by running every operation with a graph and multiplying it by its
    gate."""
    gates = {name: mix.detach().clone().requires_grad_() for name, mix in draw.mix.items()}
    loss = loss_of(supernet, Draw.dense(gates))
    found = torch.autograd.grad(loss, gates.values(), allow_unused=True)
    return {
        k: torch.zeros_like(gates[k]) if g is None else g for k, g in zip(gates, found, strict=True)
    }


def alpha_gradients(supernet, relaxation, noise):
    draw = relaxation.draw(dict(supernet.alphas), noise, 0.0)
    found = torch.autograd.grad(
        loss_of(supernet, draw), list(supernet.alphas.values()), allow_unused=True
    )
    tables = zip(supernet.alphas.items(), found, strict=True)
    return draw, {name: torch.zeros_like(alpha) if g is None else g for (name, alpha), g in tables}


def close(a, b, tolerance=1e-10):
    for name in b:
        scale = max(1e-3, b[name].abs().max().item())
        assert (a[name] - b[name]).abs().max() <= tolerance * scale, name


# Where an operation drops units at random, the masks of operations run one after the other differ
# from those of each run alone: there the two modes are compared with each other only.
@pytest.mark.parametrize("name", [name for name in SUPERNETS if name != "random"])
@pytest.mark.parametrize("sample", range(3))
def test_full_and_recompute_are_the_estimator_written_out(name, sample):
    """dL/d alpha_i = sum_j dL/dg_j p_j (delta_ij - p_i); float64, with BatchNorm and dropout."""
    supernet = prepared(name)
    noise = BinaryGates().noise(dict(supernet.alphas), generator_for(sample))
    draw, full = alpha_gradients(supernet, BinaryGates("full"), noise)
    other, recomputed = alpha_gradients(supernet, BinaryGates("recompute"), noise)
    assert draw.active == other.active
    expected = {}
    for key, G_EO in gate_gradients(supernet, draw).items():
        p_EO = torch.softmax(supernet.alphas[key].detach(), -1)
        delta = torch.eye(p_EO.shape[-1], dtype=p_EO.dtype)
        jacobian_EOO = p_EO[..., :, None] * (delta - p_EO[..., None, :])
        expected[key] = (G_EO[..., :, None] * jacobian_EOO).sum(-2)
    close(full, expected)
    close(recomputed, expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", SUPERNETS)
@pytest.mark.parametrize("mode", ["full", "recompute"])
def test_probes_leave_everything_as_it_was(name, mode):
    """Loss, running statistics and random state are those of the one sampled path; both modes agree
    to the bit."""
    outcomes = []
    for relaxation in (
        BinaryGates(mode),
        BinaryGates("full" if mode == "recompute" else "recompute"),
        None,
    ):
        supernet = prepared(name)
        gates = relaxation or BinaryGates()
        noise = gates.noise(dict(supernet.alphas), generator_for(4))
        draw = gates.path(dict(supernet.alphas), noise, 0.0)
        if relaxation is not None:
            draw = relaxation.draw(dict(supernet.alphas), noise, 0.0)
        loss = loss_of(supernet, draw)
        loss.backward()
        grads = {
            k: p.grad
            for k, p in supernet.named_parameters()
            if "alphas" not in k and p.grad is not None
        }
        alphas = [a.grad for a in supernet.alphas.values()]
        outcomes.append(
            (loss, dict(supernet.named_buffers()), torch.get_rng_state(), grads, alphas)
        )
    (loss, buffers, state, grads, alphas), again, plain = outcomes
    if name != "fused cell":  # whose own arithmetic the plain path has
        assert torch.equal(loss, plain[0]) and grads.keys() == plain[3].keys()
        assert all(torch.equal(buffers[k], plain[1][k]) for k in buffers)
        assert all(torch.allclose(grads[k], plain[3][k], atol=1e-14) for k in grads)
    assert torch.equal(state, plain[2]) and torch.equal(state, again[2])
    assert all(a is b or torch.equal(a, b) for a, b in zip(alphas, again[4], strict=True))
    assert any(a is not None and a.abs().max() > 1e-6 for a in alphas)


@pytest.mark.parametrize("name", ["chain", "cell", "choices"])
def test_two_is_the_formula_of_the_pair(name):
    """dL/da_a = q_a q_b (G_a - G_b) = -dL/da_b; all others exactly zero; Zero has G = 0."""
    supernet = prepared(name)
    for sample in range(3):
        noise = BinaryGates().noise(dict(supernet.alphas), generator_for(sample))
        draw, found = alpha_gradients(supernet, BinaryGates("two"), noise)
        assert draw.probed is not None and draw.probability is not None
        for key, G in gate_gradients(supernet, draw).items():
            G_EO = G.reshape(-1, G.shape[-1])
            alpha_EO = supernet.alphas[key].detach().reshape(-1, G.shape[-1])
            expected_EO = torch.zeros_like(G_EO)
            q_EO = draw.probability[key].reshape(G_EO.shape)
            for e, ((a,), (b,)) in enumerate(zip(draw.active[key], draw.probed[key], strict=True)):
                assert a != b
                q_a, q_b = torch.softmax(alpha_EO[e, [a, b]], 0)
                assert (
                    torch.allclose(q_EO[e, [a, b]], torch.stack([q_a, q_b]))
                    and (q_EO[e] > 0).sum() == 2
                )
                expected_EO[e, a] = q_a * q_b * (G_EO[e, a] - G_EO[e, b])
                expected_EO[e, b] = -expected_EO[e, a]
            close({key: found[key].reshape(G_EO.shape)}, {key: expected_EO})


def test_zero_is_an_operation_like_any_other():
    """Active or beside the active one: its output is 0, so its gate gradient is 0, and the pair's
    other term counts."""
    supernet = prepared("chain")
    names = CHAIN.blocks[1].candidates
    zero = names.index("zero")
    seen = set()
    for sample in range(60):
        noise = BinaryGates().noise(dict(supernet.alphas), generator_for(11, sample))
        draw = BinaryGates("two").draw(dict(supernet.alphas), noise, 0.0)
        (active,), (other,) = draw.active["block02"][0], draw.probed["block02"][0]
        if zero not in (active, other) or (active == zero) in seen:
            continue
        seen.add(active == zero)
        G_O = gate_gradients(supernet, draw)["block02"]
        assert G_O[zero] == 0.0
        _, found = alpha_gradients(supernet, BinaryGates("two"), noise)
        q_O = draw.probability["block02"].detach()
        sign = 1 if active == zero else -1
        expected = sign * q_O[active] * q_O[other] * (G_O[active] - G_O[other])
        assert found["block02"][zero].item() == pytest.approx(expected.item(), rel=1e-9)
        assert (
            found["block02"][zero].abs() > 1e-8
            or names[other] == "identity"
            or names[active] == "identity"
        )
    assert seen == {True, False}


@pytest.mark.slow
def test_two_leaves_unsampled_probabilities_as_they_were():
    """1,000 random updates with Adam: probabilities outside the pair move by less than 1e-12,
    alphas not at all."""
    generator = torch.Generator().manual_seed(0)
    gates = BinaryGates("two")
    tables = {
        "cell": torch.randn(14, 8, generator=generator, dtype=torch.float64).requires_grad_(),
        "block": torch.randn(7, generator=generator, dtype=torch.float64).requires_grad_(),
    }
    optimizer = AlphaOptimizer(**(gates.alpha_defaults | {"lr": 0.05})).build(tables.values())
    worst, moved = 0.0, 0.0
    for step in range(1000):
        noise = gates.noise(tables, generator_for(5, step))
        before = {name: t.detach().clone() for name, t in tables.items()}
        draw = gates.draw(tables, noise, 0.0)
        loss = sum(
            (draw.mix[k] * torch.randn(t.shape, generator=generator, dtype=t.dtype)).sum()
            for k, t in tables.items()
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        after = gates.after_update(before, tables, noise)
        for name, table in tables.items():
            table.data.copy_(after[name])
            pair = draw.probability[name] > 0
            change = (torch.softmax(table.detach(), -1) - torch.softmax(before[name], -1)).abs()
            worst = max(worst, change[~pair].max().item())
            moved = max(moved, change[pair].max().item())
            assert torch.equal(table.detach()[~pair], before[name][~pair])
    print(f"largest change of an unsampled probability {worst:.1e}, of a sampled one {moved:.2f}")
    assert worst < 1e-12 and moved > 1e-3


@pytest.mark.slow
def test_a_single_operation_leaves_nothing_to_learn():
    """Beside tables of several there may be some of one; nothing is probed, no alpha moves."""
    gates = BinaryGates("two")
    alphas = {
        "one": torch.randn(3, 1, requires_grad=True),
        "two": torch.randn(3, 2, requires_grad=True),
    }
    noise = gates.noise(alphas, torch.Generator().manual_seed(0))
    draw = gates.draw(alphas, noise, 0.0)
    assert draw.active["one"] == ((0,),) * 3 and draw.probed["one"] == ((),) * 3
    assert torch.equal(draw.mix["one"], torch.ones(3, 1))
    (slope,) = torch.autograd.grad((draw.mix["one"] * 5.0).sum(), alphas["one"])
    assert torch.equal(slope, torch.zeros(3, 1))
    moved = {name: alpha.detach() + 0.1 for name, alpha in alphas.items()}
    after = gates.after_update(alphas, moved, noise)
    assert torch.allclose(after["one"], alphas["one"].detach())


def test_two_points_the_way_of_full():
    """The mean update of `two` over many samples, against that of `full` (cosine)."""
    supernet = prepared("chain")
    means = {}
    for mode in ("full", "two"):
        total = None
        for sample in range(120):
            noise = BinaryGates().noise(dict(supernet.alphas), generator_for(13, sample))
            _, found = alpha_gradients(supernet, BinaryGates(mode), noise)
            flat = torch.cat([g.reshape(-1) for g in found.values()])
            total = flat if total is None else total + flat
        means[mode] = total
    cosine = F.cosine_similarity(means["full"], means["two"], dim=0).item()
    print(f"cosine {cosine:.3f}")
    assert cosine > 0.8


def test_samples_follow_the_probabilities():
    """One path: softmax(alpha). A pair: drawn without replacement, its active operation by the
    softmax of two."""
    logits = torch.tensor([0.5, -1.0, 1.0, 0.0], dtype=torch.float64)
    p = torch.softmax(logits, 0)
    tables, n = {"a": logits.expand(40_000, 4).contiguous()}, 40_000
    noise = BinaryGates().noise(tables, generator_for(1))
    path = BinaryGates().path(tables, noise, 0.0)
    assert torch.allclose(path.mix["a"].mean(0), p, atol=0.01)
    assert torch.equal(path.mix["a"].argmax(1), torch.tensor(path.active["a"])[:, 0])
    assert path.log_prob.item() == pytest.approx(
        (path.mix["a"].mean(0) * p.log()).sum().item() * n, rel=1e-9
    )
    two = BinaryGates("two").draw(tables, noise, 0.0)
    active, other = torch.tensor(two.active["a"])[:, 0], torch.tensor(two.probed["a"])[:, 0]
    for a in range(4):
        for b in range(4):
            if a != b:
                in_pair = p[a] * p[b] / (1 - p[a]) + p[b] * p[a] / (1 - p[b])
                expected = in_pair * p[a] / (p[a] + p[b])
                assert ((active == a) & (other == b)).double().mean().item() == pytest.approx(
                    expected.item(), abs=0.01
                )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["chain", "cell", "fused cell", "choices"])
@pytest.mark.parametrize("mode", ["full", "recompute", "two"])
def test_unsampled_operations_are_untouched(name, mode):
    """Parameters, momentum buffers and running statistics: bit-identical after a step, with decay
    and momentum."""
    supernet = copy.deepcopy(SUPERNETS[name])
    search = Search(
        supernet, BinaryGates(mode), FirstOrder(), WeightOptimizer(lr=0.1, weight_decay=0.1), seed=3
    )
    x, y = X.float(), Y

    def step():
        search.step(lambda net: F.cross_entropy(net(x), y), lambda net: F.cross_entropy(net(x), y))

    for _ in range(6):
        step()  # momentum buffers exist
    before = snapshot(search)
    tables = {k: a.detach().clone() for k, a in search.alphas.items()}
    step()
    # What was drawn, from the new alphas and the noise of that step
    draw = search.relaxation.path(
        {k: a.detach() for k, a in search.alphas.items()},
        search.relaxation.noise(search.alphas, generator_for(3, WEIGHT_NOISE, 6)),
        0.0,
    )
    assert any(not torch.equal(tables[k], a) for k, a in search.alphas.items())
    after, touched, untouched = snapshot(search), 0, 0
    for key, operations in places(supernet).items():
        for edge, named in enumerate(operations):
            for k, operation in enumerate(named):
                prefixes = tuple(f"{prefix}." for prefix in operation)
                own = [n for n in before if n.startswith(prefixes)]
                same = all(torch.equal(before[n], after[n]) for n in own)
                if k in draw.active[key][edge]:
                    touched += bool(own) and not same
                else:
                    assert same, (key, edge, k)
                    untouched += bool(own)
    assert touched and untouched > 1


def snapshot(search):
    """Every tensor of the network, and the momentum buffers, by the names of parameters."""
    state = {k: v.clone() for k, v in search.supernet.state_dict().items()}
    for name, p in search.params.items():
        if p in search.weight_optimizer.state:
            buffer = search.weight_optimizer.state[p]["momentum_buffer"]
            state[f"{name}.momentum"] = buffer.clone()
    return state


def places(supernet):
    """Choice -> edge -> operation -> paths of its modules."""
    found = {}
    if hasattr(supernet, "cells"):
        for kind in ("normal", "reduce"):
            found[kind] = [
                [
                    [
                        f"cells.{c}.edges.{e}.{o}"
                        for c, cell in enumerate(supernet.cells)
                        if cell.reduction == (kind == "reduce")
                    ]
                    for o in supernet.shape.names
                ]
                for e in range(supernet.shape.num_edges)
            ]
    for path, module in supernet.named_modules():
        if isinstance(module, Choice):
            found[module.name] = [[[f"{path}.operations.{o}"] for o in module.names]]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", ["chain", "random", "cell"])
def test_second_order_steps_agree_between_modes(name):
    """Finite differences run the network with other weights than its own: recomputing must see
    those."""
    results = []
    for mode in ("full", "recompute"):
        search = Search(
            copy.deepcopy(SUPERNETS[name]).double(),
            BinaryGates(mode),
            Unrolled(mode="finite_difference"),
            WeightOptimizer(lr=0.5),
            AlphaOptimizer(lr=0.1, betas=(0.0, 0.999), weight_decay=0.0),
        )
        torch.manual_seed(1)
        for _ in range(2):
            search.step(
                lambda net: F.cross_entropy(net(X), Y),
                lambda net: F.cross_entropy(net(X.flip(3)), Y),
            )
        results.append(torch.cat([a.detach().reshape(-1) for a in search.alphas.values()]))
    assert torch.allclose(*results, atol=1e-10, rtol=0)


def test_recomputing_needs_the_memory_of_one_path():
    """Bytes that autograd keeps; the test of the default chain is a benchmark."""
    space = replace(
        CHAIN,
        stages=((8, 6, 1),),
        candidates=("mb3_k3", "mb6_k3", "mb3_k5", "mb6_k5", "mb3_k7", "mb6_k7"),
    )
    supernet = space.supernet(num_classes=5)
    x, y = batch(0, side=16)

    def peak(draw):
        with SavedTensors() as kept:
            F.cross_entropy(supernet(x, draw=draw), y).backward()
        return kept.peak_bytes

    noise = BinaryGates().noise(dict(supernet.alphas), generator_for(2))
    one = peak(BinaryGates().path({k: a.detach() for k, a in supernet.alphas.items()}, noise, 0.0))
    dense = peak(Draw.dense({k: torch.softmax(a, -1) for k, a in supernet.alphas.items()}))
    ratios = {
        m: peak(BinaryGates(m).draw(dict(supernet.alphas), noise, 0.0)) / one
        for m in ("recompute", "two", "full")
    }
    assert ratios["recompute"] < ratios["two"] < 1.2 * ratios["recompute"] < 1.2**2
    assert ratios["two"] < ratios["full"] < 0.5 * dense / one


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: BinaryGates("twoo"), "mode must be 'full', 'recompute' or 'two', not 'twoo'"),
        (
            lambda: Search(TwoChoices(), BinaryGates(), alphas=AlphaOptimizer()),
            r"needs AlphaOptimizer\(betas=\(0.0, ...\), weight_decay=0.0\), not betas=\(0.5, "
            r"0.999\)",
        ),
        (
            lambda: Search(TwoChoices(), BinaryGates(), Unrolled(mode="exact")),
            "Unrolled needs second derivatives",
        ),
        (
            lambda: Search(TwoChoices(), BinaryGates("full"), Implicit()),
            "Implicit needs second derivatives",
        ),
    ],
)
def test_refusals(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


@pytest.mark.parametrize("mode", ["full", "recompute", "two"])
def test_probed_outputs_of_another_shape_are_an_error(mode):
    net = nn.Sequential(
        nn.Linear(3, 3), Choice({"a": nn.Identity(), "b": nn.Linear(3, 4)}, name="c")
    )
    search = Search(net, BinaryGates(mode))
    x = torch.ones(2, 3)
    with pytest.raises(ValueError, match=r"Choice 'c': operation \d gives"):
        search.step(lambda n: n(x).sum(), lambda n: n(x).sum())


@pytest.mark.parametrize("mode", ["full", "recompute", "two"])
def test_shapes_that_would_broadcast_are_an_error_too(mode):
    """`<dL/dy, o_k>` of maps and of their means would be a number."""
    operations = {"map": nn.Identity(), "mean": nn.AdaptiveAvgPool2d(1)}
    net = nn.Sequential(nn.Conv2d(4, 4, 1), Choice(operations, name="c"))
    search = Search(net, BinaryGates(mode))
    x = torch.ones(8, 4, 8, 8)
    with pytest.raises(ValueError, match=r"Choice 'c': operation \d gives"):
        search.step(lambda n: n(x).sum(), lambda n: n(x).sum())


def test_alphas_are_trained_as_the_relaxation_needs_it_by_default():
    search = Search(TwoChoices(), BinaryGates())
    group = search.alpha_optimizer.param_groups[0]
    assert group["betas"] == (0.0, 0.999) and group["weight_decay"] == 0.0
