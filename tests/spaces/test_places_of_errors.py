"""What does not run, and what fails, is named: the choice, its operation, the module."""

import pytest
import torch
from torch import nn

import gradnas
from gradnas import Choice
from gradnas.spaces.unreached import unreached
from gradnas.spaces.your_module import ModuleSupernet
from gradnas.tasks.your_task.checks import _check_reached


def pair():
    return Choice({"a": nn.Linear(4, 4), "b": nn.Identity()})


class Parts(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = pair()
        self.many = nn.ModuleList([pair(), pair()])
        self.inner = Choice({"deep": nn.Sequential(pair()), "flat": nn.Linear(4, 4)})

    def forward(self, x):
        for part in self.many:
            x = part(x)
        return self.inner(self.first(x))


class Unused(Parts):
    def __init__(self):
        super().__init__()
        self.spare = nn.Sequential(pair())


class Sometimes(Parts):
    """As stochastic depth, whose chance of this pass is 0."""

    def __init__(self):
        super().__init__()
        self.by_chance = pair()
        self.chance = 0.0

    def forward(self, x):
        x = super().forward(x)
        return self.by_chance(x) if torch.rand(()) < self.chance else x


class ByName(Unused):
    def forward(self, x):
        names = ["many"] if len(x) < 100 else ["many", "spare"]
        for name in names:
            x = x + sum(part(x) for part in getattr(self, name))
        return self.inner(self.first(x))


@pytest.mark.parametrize(
    ("kind", "never", "not_yet"),
    [
        (Parts, [], []),
        (Unused, ["'spare/0' (spare.0)"], []),
        (Sometimes, [], ["'by_chance' (by_chance)"]),
        (ByName, [], ["'spare/0' (spare.0)"]),
    ],
)
def test_a_choice_that_no_pass_reaches_is_refused_and_one_that_may_run_is_noted(
    kind, never, not_yet
):
    supernet = ModuleSupernet(kind())
    supernet(torch.ones(2, 4))
    assert unreached(supernet) == (never, not_yet)
    if never:
        with pytest.raises(
            ValueError, match=r"Unused has a choice that no pass reaches: 'spare/0'"
        ):
            _check_reached(supernet)
    else:
        assert len(_check_reached(supernet)) == len(not_yet)


def test_an_unused_choice_is_refused_before_there_is_a_folder(tmp_path):
    x = torch.randn(24, 4)
    task = gradnas.Task(model=Unused, train=(x, x), loss=nn.functional.mse_loss)
    with pytest.raises(ValueError, match=r"'spare/0' \(spare\.0\)"):
        gradnas.run_search(task, out=tmp_path / "r", epochs=1, progress=False, device="cpu")
    assert not (tmp_path / "r").exists()


class Wrong(Parts):
    def __init__(self):
        super().__init__()
        conv = nn.Sequential(nn.ReLU(), nn.Linear(5, 4))
        self.last = Choice({"fits": nn.Identity(), "wrong one": conv}, name="block1")

    def forward(self, x):
        return self.last(super().forward(x))


def test_an_error_in_an_operation_says_where(tmp_path):
    with pytest.raises(RuntimeError) as caught:
        gradnas.Search(Wrong()).supernet(torch.ones(2, 4))
    place = "in choice 'block1', operation 'wrong one' (module last.operations.wrong one.1)"
    assert caught.value.__notes__ == [place]
    x = torch.randn(24, 4)
    task = gradnas.Task(model=Wrong, train=(x, x), loss=nn.functional.mse_loss)
    with pytest.raises(ValueError, match="fails on a batch of") as refused:
        gradnas.run_search(task, out=tmp_path / "r", epochs=1, progress=False, device="cpu")
    assert f"{place}: RuntimeError: mat1" in str(refused.value)
    assert isinstance(refused.value.__cause__, RuntimeError)  # the user's traceback
    with pytest.raises(RuntimeError) as outside:
        gradnas.Search(Parts()).supernet(torch.ones(2, 3).expand(2, 3)[:, :0])
    assert "in choice 'many/0', operation 'a'" in outside.value.__notes__[0]
