"""The declaration of alternatives and one setting of them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gradnas import Choice, Draw, Search
from gradnas.modules.draws import using


class Times(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor
        self.calls = 0

    def forward(self, x, *, plus=0.0):
        self.calls += 1
        return x * self.factor + plus


def pair(name="c"):
    return Choice({"two": Times(2.0), "three": Times(3.0)}, name=name)


def draw(values, active=None):
    mix = {"c": torch.tensor(values)}
    return Draw.dense(mix) if active is None else Draw(mix, {"c": (active,)})


def test_the_output_is_the_mixture_and_arguments_are_passed_on():
    with using(draw([0.25, 0.75])):
        assert pair()(torch.ones(2), plus=1.0).tolist() == [0.25 * 3 + 0.75 * 4] * 2


def test_inactive_operations_do_not_run():
    choice = pair()
    with using(draw([0.0, 1.0], active=(1,))):
        assert choice(torch.ones(1)).item() == 3.0
    assert choice.operations["two"].calls == 0


def test_outside_a_search_all_operations_have_equal_weight():
    assert pair()(torch.ones(1)).item() == 2.5


def test_choices_nest():
    inner = pair("inner")
    outer = Choice({"inner": inner, "same": nn.Identity()}, name="outer")
    mix = {"outer": torch.tensor([0.5, 0.5]), "inner": torch.tensor([1.0, 0.0])}
    with using(Draw.dense(mix)):
        assert outer(torch.ones(1)).item() == 1.5


def test_structured_outputs_are_mixed_part_by_part():
    class Both(nn.Module):
        def __init__(self, k):
            super().__init__()
            self.k = k

        def forward(self, x):
            return x * self.k, {"state": [x + self.k]}

    with using(draw([0.5, 0.5])):
        y, rest = Choice({"a": Both(1.0), "b": Both(3.0)}, name="c")(torch.ones(1))
    assert y.item() == 2.0 and rest["state"][0].item() == 3.0


def test_a_recurrent_layer_can_be_a_choice():
    choice = Choice({"gru": nn.GRU(3, 4), "rnn": nn.RNN(3, 4)}, name="c")
    with using(draw([0.5, 0.5])):
        out, hidden = choice(torch.ones(2, 1, 3))
    assert out.shape == (2, 1, 4) and hidden.shape == (1, 1, 4)


def test_outputs_that_differ_in_shape_are_an_error_that_names_everything():
    choice = Choice({"same": nn.Identity(), "linear": nn.Linear(3, 4)}, name="body")
    with using(Draw.dense({"body": torch.tensor([0.5, 0.5])})), pytest.raises(ValueError) as error:
        choice(torch.ones(2, 3))
    for part in ("'body'", "'same'", "'linear'", "(2, 3)", "(2, 4)"):
        assert part in str(error.value)


def test_outputs_without_any_tensor_are_an_error():
    class Text(nn.Module):
        def forward(self, x):
            return "text"

    with pytest.raises(ValueError, match="must be tensors"):
        Choice({"a": Text(), "b": Text()}, name="c")(torch.ones(1))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Choice({"a": nn.Identity()}), "at least two"),
        (lambda: Choice([nn.Identity(), nn.Identity()]), "dictionary"),
        (
            lambda: Choice({"a": nn.Identity(), "b": torch.relu}, name="x"),
            "'x'.*'b'.*not an nn.Module",
        ),
        (lambda: Choice({"a.b": nn.Identity(), "c": nn.Identity()}), "without dots"),
        (lambda: Choice({"a": nn.Identity(), "c": nn.Identity()}, name="a.b"), "without dots"),
    ],
)
def test_refusals(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


class RunAgain(torch.autograd.Function):
    """A recomputation of one's own."""

    @staticmethod
    def forward(ctx, run, x):
        ctx.run = run
        ctx.save_for_backward(x)
        return run(x)

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            return None, torch.autograd.grad(ctx.run(x), x, grad)[0]


def test_recomputing_a_choice_in_backward_is_refused_not_silently_wrong():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(2, 2)
            self.choice = Choice({"a": nn.Tanh(), "b": nn.Sigmoid()}, name="c")

        def forward(self, x):
            once = self.choice(self.linear(x)).sum()
            return once + RunAgain.apply(self.choice, self.linear(x)).sum()

    x = torch.ones(1, 2)
    with pytest.raises(RuntimeError, match="checkpointing"):
        Search(Net()).step(lambda net: net(x), lambda net: net(x))


def test_a_choice_added_after_the_search_began_is_an_error():
    with (
        using(draw([0.5, 0.5])),
        pytest.raises(RuntimeError, match="not part of the running search"),
    ):
        pair("another")(torch.ones(1))


def test_one_hot_draws():
    found = Draw.one_hot({"c": [1, None]}, {"c": torch.zeros(2, 3)})
    assert found.mix["c"].tolist() == [[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
    assert found.active["c"] == ((1,), ())


def test_a_setting_in_which_all_operations_agree_can_be_read():
    choice = Choice({"a": nn.Linear(4, 3), "b": nn.Linear(4, 3, bias=False)}, name="c")
    assert (choice.in_features, choice.out_features) == (4, 3)
    assert hasattr(choice, "operations") and not hasattr(choice, "weight")
    with pytest.raises(AttributeError, match=r"Choice 'c' has no attribute 'weight'.*can call it"):
        choice.weight  # noqa: B018
    other = Choice({"a": nn.Linear(4, 3), "b": nn.Linear(4, 4)}, name="c")
    with pytest.raises(AttributeError, match="do not agree"):
        other.out_features  # noqa: B018
