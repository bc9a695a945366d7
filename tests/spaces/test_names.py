"""Names of choices and operations: whatever torch's containers have under them themselves."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gradnas import BinaryGates, Choice, FirstOrder, Search, Softmax, Unrolled
from gradnas.spaces.your_module import ModuleSupernet

WIDTH = 4


def names_of(*types: type) -> list[str]:
    names: set[str] = set()
    for kind in types:
        names |= set(dir(kind())) | set(vars(kind()))
    return sorted(name for name in names if "." not in name)


HARD = names_of(nn.ModuleDict, nn.ParameterDict, nn.Linear.__base__)


def test_there_are_many():
    wanted = {"half", "type", "train", "keys", "values", "items", "get", "pop", "update", "float"}
    assert wanted <= set(HARD)
    assert {"_keys", "_modules", "training", "__class__"} <= set(HARD)


class Beside(nn.Module):
    """A choice for every name, side by side, and one of operations with all these names."""

    def __init__(self) -> None:
        super().__init__()
        self.choices = nn.ModuleList()
        for name in HARD:
            operations = {name: nn.Linear(2, 2), "skip": nn.Identity()}
            self.choices.append(Choice(operations, name=name))
        self.all = Choice({name: nn.Linear(2, 2) for name in HARD}, name="all")
        self.head = nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        total = self.all(x)
        for choice in self.choices:
            total = total + choice(x)
        return self.head(torch.tanh(total / 10))


@pytest.mark.parametrize("relaxation", [Softmax(), BinaryGates("recompute")])
@pytest.mark.parametrize("gradient", [FirstOrder(), Unrolled()])
def test_all_of_them_as_names_of_operations_and_choices(relaxation, gradient):
    torch.manual_seed(0)
    search = Search(Beside(), relaxation, gradient)
    x, y = torch.randn(5, 2), torch.zeros(5, dtype=torch.long)
    before = {name: alpha.detach().clone() for name, alpha in search.alphas.items()}
    search.step(lambda n: F.cross_entropy(n(x), y), lambda n: F.cross_entropy(n(x), y))
    assert set(before) == {*HARD, "all"}
    for name, alpha in search.alphas.items():
        assert not torch.equal(alpha, before[name]), name
        assert search.supernet.alphas[name] is alpha
    derived = search.result().derive()
    assert not any(isinstance(module, Choice) for module in derived.modules())

    # Every weight is in the state, and goes back to where it was.
    other = Search(Beside(), relaxation, gradient)
    other.load_state_dict(search.state_dict())
    assert torch.equal(other.supernet(x), search.supernet(x))


@pytest.mark.parametrize("name", ["keys", "values", "items", "get", "pop", "update", "copy"])
def test_an_unnamed_choice_is_named_by_its_attribute(name):
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            setattr(self, name, Choice({"a": nn.Linear(4, 4), "b": nn.Linear(4, 4)}))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return getattr(self, name)(x)

    supernet = ModuleSupernet(Net())
    assert list(supernet.names) == [name] == list(supernet.alphas)
    assert supernet(torch.randn(2, 4)).shape == (2, 4)


@pytest.mark.parametrize("name", ["half", "type", "train", "forward", "training"])
def test_an_attribute_that_every_module_has_is_refused(name):
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Sequential()
            self.inner._modules[name] = Choice({"a": nn.Linear(4, 4), "b": nn.Linear(4, 4)})

    with pytest.raises(ValueError, match=rf"'inner\.{name}' is hidden by.*another name"):
        Search(Net())


@pytest.mark.parametrize("name", ["", "a.b", 3])
def test_names_that_no_state_can_hold(name):
    with pytest.raises(ValueError, match="without dots"):
        Choice({name: nn.Identity(), "b": nn.Identity()})


def test_one_decision_for_several_places_is_said(capsys):
    def block() -> nn.Module:
        return Choice({"l": nn.Linear(4, 4), "skip": nn.Identity()}, name="op")

    net = nn.Sequential(block(), block(), block(), Choice({"a": nn.Tanh(), "b": nn.ReLU()}))
    x, y = torch.randn(5, 4), torch.zeros(5, dtype=torch.long)
    result = Search(net).fit([(x, y)], [(x, y)], F.cross_entropy, epochs=1)
    assert set(result.choices) == {"op", "3"}
    captured = capsys.readouterr()
    text = captured.out + captured.err
    assert text.count("one decision for") == 1
    assert "op: one decision for 3 places" in text


@pytest.mark.parametrize("gradient", [FirstOrder(), Unrolled()])
def test_an_argument_named_draw_is_the_searchs(gradient):
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.c = Choice({"a": nn.Linear(4, 3), "b": nn.Linear(4, 3)})

        def forward(self, x: Tensor, draw: int = 1) -> Tensor:
            return draw * self.c(x)

    search = Search(Net(), gradient=gradient)
    x, y = torch.randn(5, 4), torch.zeros(5, dtype=torch.long)
    with pytest.raises(ValueError, match=r"the search itself says.*by its position"):
        search.step(lambda n: F.cross_entropy(n(x, draw=2), y))
    with pytest.raises(ValueError, match=r"takes a gradnas.Draw, not a int"):
        search.supernet(x, draw=2)
    search.step(lambda n: F.cross_entropy(n(x, 2), y), lambda n: F.cross_entropy(n(x, 2), y))
