"""One's own module: the type of its alphas, and what it computes outside the losses of a search."""

from __future__ import annotations

import copy
import io
import threading

import pytest
import torch
import torch.nn.functional as F
from cases import GRADIENTS, RELAXATIONS, TwoChoices, batch, loss_on, name_of
from torch import nn

import gradnas
from gradnas import Choice, Search
from gradnas.spaces.your_module import ModuleSupernet

X = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(8) % 3

PAIRS = []
for relaxation in RELAXATIONS:
    for gradient in GRADIENTS:
        if not (gradient.differentiates_twice and relaxation.once_differentiable):
            PAIRS.append((relaxation, gradient))


def module():
    torch.manual_seed(0)
    operations = {"a": nn.Linear(4, 3), "b": nn.Linear(4, 3)}
    return nn.Sequential(Choice(operations, name="c"))


def loss(net):
    return F.cross_entropy(net(X), Y)


# ---- the type of the alphas ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weights", "alphas"),
    [
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_alphas_are_float32_or_wider_whatever_the_weights_are(weights, alphas):
    search = Search(module().to(weights))
    assert search.alphas["c"].dtype == alphas
    search.supernet.to(torch.bfloat16)
    assert search.alphas["c"].dtype in (torch.float32, torch.float64)
    search.supernet.double()
    assert search.alphas["c"].dtype == torch.float64


def test_a_first_layer_in_half_precision_decides_nothing():
    net = nn.Sequential(nn.Embedding(5, 4).half(), TwoChoices())
    assert ModuleSupernet(net).alphas["first"].dtype == torch.float32


@pytest.mark.parametrize(("relaxation", "gradient"), PAIRS, ids=name_of)
def test_alphas_of_a_bfloat16_module_move_and_the_output_is_bfloat16(relaxation, gradient):
    torch.manual_seed(0)
    if gradient == gradnas.Unrolled():
        with pytest.raises(ValueError, match="bfloat16"):
            Search(TwoChoices().bfloat16(), relaxation, gradient, epochs=3)
        return
    search = Search(TwoChoices().bfloat16(), relaxation, gradient, epochs=3)
    with torch.no_grad():
        for alpha in search.alphas.values():
            alpha.fill_(0.5)
    x, y = batch(0, dtype=torch.bfloat16)
    search.step(loss_on((x, y)), loss_on((x, y)))
    for alpha in search.alphas.values():
        moved = (alpha - 0.5).abs().max().item()
        assert 0 < moved < 0.01  # a step of Adam, below what bfloat16 can show at 0.5
        assert torch.equal(alpha, alpha.float())
    assert search.supernet(x).dtype == torch.bfloat16
    assert search.result().derive()(x).dtype == torch.bfloat16


@pytest.mark.parametrize("fused", [True, False])
def test_alphas_of_a_published_cell_stay_float32_too(fused):
    space = gradnas.ConvCell(channels=4, cells=3, nodes=2)
    supernet = space.supernet(3, 5, fused=fused)
    before = supernet.alphas["normal"].detach().clone()
    supernet.bfloat16()
    assert torch.equal(supernet.alphas["normal"], before)
    search = Search(supernet)
    one = batch(0, dtype=torch.bfloat16, side=8)
    search.step(loss_on(one), loss_on(one))
    assert supernet.alphas["normal"].dtype == torch.float32
    assert not torch.equal(supernet.alphas["normal"], before)


def test_a_recurrent_supernet_in_bfloat16_mixes_with_float32_alphas():
    supernet = gradnas.RecurrentCell(hidden=8, embedding=8).supernet(20).bfloat16()
    search = Search(supernet)
    tokens = torch.randint(20, (5, 3))

    def likelihood(net):
        return F.nll_loss(net(tokens)[0].flatten(0, 1), tokens.flatten())

    before = search.alphas["recurrent"].detach().clone()
    search.step(likelihood, likelihood)
    assert search.alphas["recurrent"].dtype == torch.float32
    assert not torch.equal(search.alphas["recurrent"], before)


# ---- the user's own variable ---------------------------------------------------------------------


@pytest.mark.parametrize("relaxation", [gradnas.Softmax(), gradnas.Sigmoid()], ids=name_of)
def test_after_a_search_the_module_is_the_mixture_of_the_alphas(relaxation):
    net = module()
    search = Search(net, relaxation)
    search.step(loss, loss)
    with torch.no_grad():
        search.alphas["c"].copy_(torch.tensor([2.0, -1.0]))
    operations = net[0].operations
    weights = relaxation.probabilities(search.alphas["c"])
    expected = weights[0] * operations["a"](X) + weights[1] * operations["b"](X)
    torch.testing.assert_close(net(X), expected)
    torch.testing.assert_close(search.supernet(X), expected)


def test_before_a_search_all_operations_have_equal_weight():
    net = module()
    operations = net[0].operations
    expected = 0.5 * operations["a"](X) + 0.5 * operations["b"](X)
    torch.testing.assert_close(net(X), expected)


@pytest.mark.parametrize("which", ["train", "validation"])
@pytest.mark.parametrize("called", ["net", "supernet"])
def test_a_loss_that_calls_another_variable_is_refused(which, called):
    net = module()
    search = Search(net)
    own = net if called == "net" else search.supernet

    def wrong(_):
        return F.cross_entropy(own(X), Y)

    losses = (wrong, loss) if which == "train" else (loss, wrong)
    with pytest.raises(ValueError, match="past the argument of the loss"):
        search.step(*losses)
    search.step(loss, loss)  # and the search goes on
    assert torch.isfinite(net(X)).all()


class InThreads(nn.Module):
    """Runs its choice as `nn.DataParallel` runs replicas."""

    def __init__(self):
        super().__init__()
        self.choice = Choice({"a": nn.Linear(4, 3), "b": nn.Linear(4, 3)}, name="c")

    def forward(self, x):
        outputs = []
        errors = []

        def run():
            try:
                outputs.append(self.choice(x))
            except ValueError as error:
                errors.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return outputs[0]


def test_a_choice_in_another_thread_raises_and_does_not_mix_equally():
    net = InThreads()
    search = Search(net)
    with pytest.raises(ValueError, match=r"'c'.*thread"):
        search.step(loss, loss)


def test_wrappers_over_devices_are_refused_at_construction():
    with pytest.raises(ValueError, match=r"nn\.DataParallel.*torchrun"):
        Search(nn.DataParallel(module()))
    with pytest.raises(ValueError, match=r"'0'.*nn\.DataParallel"):
        Search(nn.Sequential(nn.DataParallel(nn.Linear(4, 4)), module()))


def test_a_copy_of_a_searched_module_says_what_to_call():
    net = module()
    search = Search(net)
    copied = copy.deepcopy(net)
    with pytest.raises(ValueError, match=r"search\.supernet\(x\)"):
        copied(X)
    file = io.BytesIO()
    torch.save(net, file)
    file.seek(0)
    with pytest.raises(ValueError, match=r"result\(\)\.derive\(\)"):
        torch.load(file, weights_only=False)(X)
    assert Search(copied).supernet(X).shape == net(X).shape  # a search of its own
    assert search.result().derive()(X).shape == (8, 3)
