"""The recurrent space: sizes, derivation, and supernet and derived network against plain
implementations."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from plain_recurrent import plain_network, plain_supernet

from gradnas import (
    Genotype,
    RecurrentCell,
    RecurrentDropout,
    Search,
    SGDStep,
    TokenLikelihood,
    Unrolled,
    WeightOptimizer,
)
from gradnas.config import from_json, to_json
from gradnas.gradients.base import norm
from gradnas.randomness import generator_for
from gradnas.spaces import ACTIVATIONS
from gradnas.spaces.recurrent import kernels

D = torch.float64
DROPOUT = RecurrentDropout(output=0.5, state=0.25, input=0.5, embedding=0.2, words=0.1)
# 70: not a whole number of vectors.
SMALL = RecurrentCell(hidden=70, embedding=70, nodes=3, dropout=DROPOUT)
V = 23


def num_weights(model):
    return sum(p.numel() for name, p in model.named_parameters() if not name.startswith("alphas."))


def tokens(seed, T=5, B=4):
    return torch.randint(V, (T, B), generator=generator_for(seed))


def twins(make, other, training=True):
    """Our model and the plain one with the same weights (larger than fresh ones, so that nothing is
    nearly zero)."""
    torch.manual_seed(0)
    ours = make().double().train(training)
    with torch.no_grad():
        for p in ours.parameters():
            p.copy_(torch.randn(p.shape, dtype=D) * 0.3)
    plain = other().double().train(training)
    plain.load_state_dict(ours.state_dict())
    return ours, plain


def results(model, hidden, seed=3, **named):
    """Loss, outputs, and all gradients, with the dropout masks of a seed."""
    torch.manual_seed(seed)
    hidden = hidden.clone().requires_grad_()
    out = model(tokens(1), hidden, tokens(2), **named)
    loss, _ = TokenLikelihood(activation=0.3, slowness=0.7)(out)
    loss = loss + out.hidden_BH.sin().sum()
    grads = torch.autograd.grad(loss, [hidden, *model.parameters()], allow_unused=True)
    torch.manual_seed(seed)
    log_prob_TBV, after_BH = model(tokens(1), hidden, **named)
    return [loss, *out, log_prob_TBV, after_BH, *(g for g in grads if g is not None)]


def assert_same(one, other, tolerance=1e-9):
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert a.shape == b.shape
        assert (a - b).abs().max() <= tolerance * max(1.0, b.abs().max().item())


# ---- sizes and derivation ------------------------------------------------------------------------


def test_sizes_of_the_paper():
    """Search at 300, evaluation at 850 and 700, the ENAS cell at 850; 36 edges of 5 operations."""
    with torch.device("meta"):
        supernet = RecurrentCell().supernet(vocabulary=10000)
        assert num_weights(supernet) == 4_810_000 and supernet.alphas["recurrent"].shape == (36, 5)
        for hidden, vocabulary, name, size in (
            (850, 10000, "DARTS_V1_recurrent", 22_960_000),
            (850, 10000, "DARTS_V2_recurrent", 22_960_000),
            (700, 33278, "DARTS_V2_recurrent", 33_127_878),
            (850, 10000, "ENAS", 27_295_000),
        ):
            network = RecurrentCell(hidden=hidden, embedding=hidden).network(
                Genotype.named(name), vocabulary
            )
            assert num_weights(network) == size


def test_derivation():
    """Ties go to the lowest predecessor and column, `none` is never chosen but keeps its share of
    the softmax."""
    space = RecurrentCell(hidden=4, embedding=4, nodes=3)
    flat = torch.zeros(6, 5)
    assert space.derive({"recurrent": flat}).recurrent == (("tanh", 0), ("tanh", 0), ("tanh", 0))
    alphas = flat.clone()
    alphas[:, 0] = 9.0  # none everywhere
    alphas[space.edge(2, 1), 4] = 9.1
    alphas[space.edge(3, 1), 2] = 2.0
    alphas[space.edge(3, 1), 0] = 0.0
    alphas[space.edge(3, 2), 3] = 3.0  # the larger alpha, but none takes nearly all of this edge
    genotype = space.derive({"recurrent": alphas})
    assert genotype.recurrent == (
        ("tanh", 0),
        ("identity", 1),
        ("relu", 1),
    ) and genotype.concat == (1, 2, 3)
    assert Genotype.parse(genotype.to_text()) == genotype
    assert space.random_decision(generator_for(1)).kind == "recurrent"


def test_configuration_round_trip():
    space = replace(SMALL, activations=("none", "tanh", "gelu"))
    assert from_json(RecurrentCell, to_json(space)) == space
    own = RecurrentCell(hidden=4, embedding=4, activations={"none": None, "cube": lambda x: x**3})
    with pytest.raises(ValueError, match="'cube' cannot be written"):
        to_json(own)


# ---- against the plain implementation ------------------------------------------------------------


@pytest.fixture(params=["kernels", "torch"])
def way(request, monkeypatch):
    """Both ways of computing: where there is no compiler, the kernels' way is not there to be
    tested."""
    if request.param == "torch":
        monkeypatch.setattr(kernels, "native_kernels", lambda dtype: None)
    elif kernels.kernels(torch.zeros(1)) is None:
        pytest.skip("no C++ compiler here")
    return request.param


@pytest.mark.parametrize("training", [True, False])
def test_the_supernet_is_the_plain_one(way, training):
    """Outputs, the gradients of weights, alphas and hidden state, in float64 to 1e-9, with all
    dropout on."""
    ours, plain = twins(lambda: SMALL.supernet(V), lambda: plain_supernet(SMALL, V), training)
    hidden = torch.randn(4, 70, dtype=D)
    assert_same(results(ours, hidden), results(plain, hidden))
    one_hot = ours.one_hot_draw(SMALL.random_decision(generator_for(4)))
    assert_same(results(ours, hidden, draw=one_hot), results(plain, hidden, draw=one_hot))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ["DARTS_V1_recurrent", "DARTS_V2_recurrent", "ENAS"])
def test_the_derived_network_is_the_plain_one(way, name, training):
    genotype = Genotype.named(name)
    ours, plain = twins(
        lambda: SMALL.network(genotype, V), lambda: plain_network(SMALL, genotype, V), training
    )
    hidden = torch.randn(4, 70, dtype=D)
    assert_same(results(ours, hidden), results(plain, hidden))


def test_any_number_of_nodes_and_any_activations():
    """Other activations, known ones and the user's own, go through torch and are the plain ones
    too."""
    names = {
        "none": None,
        "sine": torch.sin,
        **{name: ACTIVATIONS[name] for name in ("gelu", "relu")},
    }
    space = RecurrentCell(hidden=8, embedding=8, nodes=2, activations=names)
    ours, plain = twins(lambda: space.supernet(V), lambda: plain_supernet(space, V))
    assert ours.alphas["recurrent"].shape == (3, 4)
    hidden = torch.randn(4, 8, dtype=D)
    assert_same(results(ours, hidden), results(plain, hidden))
    genotype = Genotype.recurrent_cell([("sine", 0), ("gelu", 1)])
    ours, plain = twins(
        lambda: space.network(genotype, V), lambda: plain_network(space, genotype, V)
    )
    assert_same(results(ours, hidden), results(plain, hidden))


def test_float32_and_a_large_batch_of_logits(way):
    """Single precision is near double precision, also where the logits come in several blocks of
    rows."""
    space = RecurrentCell(hidden=16, embedding=16, nodes=2)
    torch.manual_seed(0)
    double = space.supernet(V).double()
    single = space.supernet(V)
    single.load_state_dict(double.state_dict())
    ids = torch.randint(V, (2, 11, 60), generator=generator_for(5))
    losses = [net(ids[0], None, ids[1]).nll for net in (double, single)]
    assert losses[1].item() == pytest.approx(losses[0].item(), rel=1e-5)
    found = [
        torch.autograd.grad(loss, list(net.parameters()))
        for loss, net in zip(losses, (double, single), strict=True)
    ]
    assert norm([a - b.double() for a, b in zip(*found, strict=True)]) <= 1e-4 * norm(found[0])


def test_the_result_does_not_depend_on_the_number_of_threads(way):
    ours, _ = twins(lambda: SMALL.supernet(V), lambda: plain_supernet(SMALL, V))
    hidden, before = torch.randn(4, 70, dtype=D), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = results(ours, hidden)
        torch.set_num_threads(2)
        two = results(ours, hidden)
    finally:
        torch.set_num_threads(before)
    assert_same(one, two, 1e-12)


def test_kept_weights_and_batch_statistics():
    """`derived` copies the weights; the supernet has no running statistics, so evaluation changes
    nothing in it."""
    supernet = SMALL.supernet(V)
    assert not list(supernet.buffers())
    genotype = supernet.decide()
    network = supernet.derived(genotype)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, supernet.state_dict()[name])
    assert not torch.equal(supernet.derived(genotype, "fresh").node_weights, supernet.node_weights)


# ---- the second-order gradient -------------------------------------------------------------------


def second_order(mode, dropout, clip=0.25, epsilon=1e-5, differentiate=False):
    """The architecture gradient of one search step, by `mode`; also whether the inner gradient was
    clipped."""
    torch.manual_seed(1)
    # Smooth.
    space = replace(SMALL, dropout=dropout, activations=("none", "tanh", "sigmoid", "identity"))
    supernet = space.supernet(V).double()
    with torch.no_grad():
        for p in supernet.parameters():
            p.copy_(torch.randn(p.shape, dtype=D) * 0.2)
    weights = WeightOptimizer(lr=5.0, momentum=0.0, weight_decay=5e-7, clip_norm=clip)
    search = Search(
        supernet, gradient=Unrolled(mode=mode, epsilon=epsilon, clip=True), weights=weights
    )
    inner = search.weight_step.inner_step(search.gradient)
    assert inner.clip_norm == clip
    inner = replace(inner, differentiate_clip=differentiate)

    def nll_from(k):
        return search.passes.closure(lambda net: net(tokens(k), None, tokens(k + 1)).nll, {})

    train = nll_from(10)
    valid = nll_from(20)
    return search.gradient(train, valid, search.params, search.alphas, inner=inner)["recurrent"], (
        train,
        valid,
        search,
    )


@pytest.mark.parametrize("clip", [0.05, 1e9])
@pytest.mark.parametrize("differentiate", [False, True])
@pytest.mark.parametrize(("dropout", "tolerance"), [(DROPOUT, 1e-4), (RecurrentDropout(), 1e-6)])
def test_finite_difference_is_exact(dropout, tolerance, clip, differentiate):
    """With shared masks the published finite difference is the exact gradient, also where the inner
    step clips."""
    exact, _ = second_order("exact", dropout, clip, differentiate=differentiate)
    finite, _ = second_order("finite_difference", dropout, clip, differentiate=differentiate)
    assert (finite - exact).norm() <= tolerance * exact.norm()
    first, _ = second_order("exact", dropout, clip=1e-9)  # hardly a step at all
    assert (first - exact).norm() > 1e-3 * exact.norm()  # the second-order term is there


def test_the_derivative_through_the_clip_is_that_of_the_step():
    """With `differentiate_clip`, exact mode is the numerical derivative of L_valid(w'(alpha),
    alpha)."""
    exact, (train, valid, search) = second_order(
        "exact", RecurrentDropout(), clip=0.05, differentiate=True
    )
    inner = replace(search.weight_step.inner_step(search.gradient), differentiate_clip=True)
    params = {k: p.detach().requires_grad_() for k, p in search.params.items()}

    def outer(alpha):
        grads = torch.autograd.grad(train(params, {"recurrent": alpha}), list(params.values()))
        assert norm(grads) > 0.05  # so it is clipped
        new, _ = inner(params, grads, {})
        return valid(new, {"recurrent": alpha}).item()

    alpha = search.alphas["recurrent"].detach()
    direction = torch.randn(alpha.shape, generator=generator_for(6), dtype=D)
    step = 1e-5 * direction
    numerical = (outer(alpha + step) - outer(alpha - step)) / 2e-5
    assert (exact * direction).sum().item() == pytest.approx(numerical, rel=1e-5)


def test_the_clip_factor_never_exceeds_one():
    """A small gradient is not made larger (the original code does that)."""
    grads = [torch.full((2,), 0.01)]
    for through in (False, True):
        assert (
            SGDStep(lr=1.0, clip_norm=0.25, differentiate_clip=through).clip_factor(grads).item()
            == 1.0
        )
    with pytest.raises(ValueError, match="clip_norm must be positive"):
        SGDStep(lr=1.0, clip_norm=0.0)


# ---- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: RecurrentCell(hidden=4, embedding=5), "hidden and embedding must be equal"),
        (lambda: RecurrentCell(nodes=0), "nodes must be a whole number of at least 1"),
        (
            lambda: RecurrentCell(activations=("none", "tahn")),
            "unknown activation 'tahn'.*did you mean 'tanh'",
        ),
        (lambda: RecurrentCell(activations=("none",)), "at least one activation besides 'none'"),
        (lambda: RecurrentDropout(output=1.0), r"dropout 'output' must be in \[0, 1\)"),
        (lambda: SMALL.network(Genotype.named("DARTS_V2"), V), "needs a recurrent genotype"),
        (
            lambda: SMALL.network(Genotype.recurrent_cell([("rleu", 0)]), V),
            "unknown activation 'rleu'.*'relu'",
        ),
        (lambda: SMALL.supernet(1), "at least 2"),
        (lambda: SMALL.supernet(V)(tokens(0, B=1)), "at least two texts"),
        (lambda: SMALL.supernet(V)(tokens(0).float()), "whole numbers of shape"),
        (lambda: SMALL.supernet(V)(tokens(0), torch.zeros(3, 70)), r"has the shape \(4, 70\)"),
        (
            lambda: SMALL.supernet(V)(tokens(0), None, tokens(0, T=4)),
            r"targets of the shape \(5, 4\)",
        ),
        (
            lambda: SMALL.supernet(V)(tokens(0), None, tokens(0) + V),
            "targets must be tokens in 0..22",
        ),
        (
            lambda: SMALL.supernet(V).one_hot_draw(Genotype.named("ENAS")),
            "a cell of this supernet has 3 nodes",
        ),
        (lambda: TokenLikelihood(slowness=-1.0), "must not be negative"),
    ],
)
def test_refusals(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()
