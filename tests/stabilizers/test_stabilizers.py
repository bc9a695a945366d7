"""What stabilizers do to draws, by the papers' numbers, and to whole searches."""

from __future__ import annotations

import pytest
import torch
from cases import TwoChoices, batch, loss_on

from gradnas import (
    AuxiliarySkip,
    BinaryGates,
    Choice,
    Draw,
    PerturbedAlphas,
    RecurrentCell,
    Search,
    Unrolled,
)
from gradnas.search.sampling import WEIGHT_NOISE


def perturbed(p: torch.Tensor, noise: torch.Tensor, size: float) -> torch.Tensor:
    """Row by row, entry by entry, as the paper's code says it."""
    rows = []
    for row, numbers in zip(p.tolist(), noise.tolist(), strict=True):
        moved = [min(1.0, max(0.0, a + size * u)) for a, u in zip(row, numbers, strict=True)]
        total = sum(moved)
        if total == 0.0:
            moved = [1.0 if k == row.index(max(row)) else 0.0 for k in range(len(row))]
            total = 1.0
        rows.append([a / total for a in moved])
    return torch.tensor(rows, dtype=p.dtype)


def test_perturbed_probabilities_by_their_formula():
    p = torch.softmax(torch.randn(6, 5, dtype=torch.float64), -1)
    method = PerturbedAlphas()
    assert [method.size_at(e / 50) for e in (0, 49)] == pytest.approx([0.03, 0.2946])
    noise = method.noise({"x": p}, torch.Generator().manual_seed(0))
    assert noise["x"].abs().max() <= 1.0 and noise["x"].min() < -0.5 < 0.5 < noise["x"].max()
    for done in (0.0, 0.98):
        drawn = method.in_weight_step(Draw.dense({"x": p}), noise, done).mix["x"]
        assert torch.allclose(drawn, perturbed(p, noise["x"], method.size_at(done)), atol=1e-12)
    gone = {"x": torch.full((6, 5), -1.0, dtype=torch.float64)}
    even = {"x": torch.full((6, 5), 0.2, dtype=torch.float64)}
    first = PerturbedAlphas(end=0.5).in_weight_step(Draw.dense(even), gone, 1.0).mix["x"]
    assert torch.equal(first[:, 0], torch.ones(6, dtype=torch.float64)) and first.sum() == 6


def test_the_skip_falls_to_nothing():
    method = AuxiliarySkip()
    assert [method.weight_at(e / 50) for e in (0, 25, 49)] == pytest.approx([1.0, 0.5, 0.02])
    assert AuxiliarySkip(decay="cosine").weight_at(0.5) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="decay must be"):
        AuxiliarySkip(decay="none")


def test_weights_learn_perturbed_and_alphas_do_not():
    torch.manual_seed(0)
    search = Search(TwoChoices(), epochs=4, stabilizers=[PerturbedAlphas(start=0.3, end=0.3)])
    tables = {name: alpha.detach() for name, alpha in search.alphas.items()}
    draws = []
    for steps in (0, 1, 0):
        search.schedule.steps = steps
        draws.append(search.passes.weight_path(tables, search.passes.noise(WEIGHT_NOISE)))
    plain = search.passes.path(tables, {}).mix["first"]
    first, second, again = (draw.mix["first"] for draw in draws)
    assert torch.equal(first, again) and not torch.equal(first, second)
    assert not torch.allclose(first, plain) and torch.allclose(
        plain, torch.softmax(tables["first"], -1)
    )


def test_a_skip_beside_a_choice_adds_its_input():
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        Choice({"a": torch.nn.Linear(4, 4), "b": torch.nn.Linear(4, 4)}, name="one")
    )
    search = Search(net, epochs=4, stabilizers=[AuxiliarySkip(start=0.5)])
    x = torch.randn(3, 4)
    search.schedule.epoch = 1
    draw = search.evaluation_draw()
    assert draw.skip == pytest.approx(0.375)
    mixture = sum(
        weight * operation(x)
        for weight, operation in zip(draw.mix["one"], net[0].operations.values(), strict=True)
    )
    assert torch.allclose(search.supernet(x, draw=draw), mixture + 0.375 * x)
    assert torch.equal(
        search.alpha_step.probe(lambda net: net(x).sum()), (mixture + 0.375 * x).sum()
    )


def test_a_skip_beside_a_choice_of_another_shape_is_refused():
    net = torch.nn.Sequential(
        Choice({"a": torch.nn.Linear(4, 2), "b": torch.nn.Linear(4, 2)}, name="one")
    )
    search = Search(net, epochs=4, stabilizers=[AuxiliarySkip()])
    with pytest.raises(ValueError, match="Choice 'one' does not give a tensor of the shape"):
        search.step(lambda net: net(torch.ones(3, 4)).mean(), None)


def test_the_skip_of_a_recurrent_cell_is_its_identity():
    torch.manual_seed(0)
    space = RecurrentCell(hidden=4, embedding=4, nodes=2)
    supernet = space.supernet(7).double().eval()
    tokens = torch.tensor([[1, 2], [3, 4]])
    plain = supernet.dense_draw()
    with_skip = AuxiliarySkip(start=0.5).in_every_step(plain, 0.0)
    moved = plain.mix["recurrent"].clone()
    moved[:, space.names.index("identity")] += 0.5
    right = supernet(tokens, draw=Draw.dense({"recurrent": moved}))[0]
    assert torch.allclose(supernet(tokens, draw=with_skip)[0], right)
    lean = RecurrentCell(hidden=4, embedding=4, nodes=2, activations=("none", "tanh"))
    with pytest.raises(ValueError, match="its activation 'identity'"):
        Search(lean.supernet(7), stabilizers=[AuxiliarySkip()])


def test_what_does_not_fit_is_refused():
    for stabilizers, relaxation, sentence in (
        ([PerturbedAlphas()], BinaryGates(), "they learn on one operation of each edge"),
        ([PerturbedAlphas(), PerturbedAlphas()], None, "is given twice"),
        (["skip"], None, "must be Stabilizers"),
    ):
        given = {} if relaxation is None else {"relaxation": relaxation}
        with pytest.raises(ValueError, match=sentence):
            Search(TwoChoices(), stabilizers=stabilizers, **given)
    search = Search(TwoChoices(), stabilizers=[PerturbedAlphas()])
    with pytest.raises(ValueError, match="say how long it is"):
        search.step(loss_on(batch(0)), None)


def test_resumed_is_as_never_stopped():
    def new():
        torch.manual_seed(0)
        methods = [PerturbedAlphas(), AuxiliarySkip()]
        net = torch.nn.Sequential(
            Choice({"a": torch.nn.Linear(4, 4), "b": torch.nn.Tanh()}, name="one")
        )
        return Search(net, gradient=Unrolled(), epochs=3, stabilizers=methods)

    def steps(search, first, last):
        for k in range(first, last):
            x = torch.randn(5, 4, generator=torch.Generator().manual_seed(k))
            loss = lambda net: (net(x) - x).square().mean()  # noqa: E731, B023
            search.step(loss, loss)
            search.finish_epoch()

    whole = new()
    steps(whole, 0, 3)
    half = new()
    steps(half, 0, 2)
    other = new()
    other.load_state_dict(half.state_dict())
    steps(other, 2, 3)
    for one, two in zip(whole.supernet.parameters(), other.supernet.parameters(), strict=True):
        assert torch.equal(one, two)
    with pytest.raises(ValueError, match="the stabilizers PerturbedAlphas"):
        Search(new().supernet.net, gradient=Unrolled(), epochs=3).load_state_dict(half.state_dict())
