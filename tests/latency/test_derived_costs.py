"""What the table says of a decision is what the derived network has, whatever the module."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import gradnas
from gradnas import Choice, ExpectedCost
from gradnas.latency import Costs, survey
from gradnas.spaces import ModuleSupernet, budget
from gradnas.spaces.affordable import cost_of, decide_within, least_cost
from gradnas.spaces.budget import knapsack

pytestmark = pytest.mark.slow  # many combinations, or whole runs

WIDTH = 6
X = torch.randn(2, WIDTH)


def linear() -> nn.Linear:
    return nn.Linear(WIDTH, WIDTH)


def decisions(supernet: ModuleSupernet, most: int = 1000) -> list[dict[str, int]]:
    """Columns of every choice, reached or not."""
    sizes = {name: alpha.shape[-1] for name, alpha in supernet.alphas.items()}
    everything = itertools.product(*[range(size) for size in sizes.values()])
    return [
        dict(zip(sizes, columns, strict=True)) for columns in itertools.islice(everything, most)
    ]


def check(net: nn.Module, x: Tensor = X, some: int = 1000) -> None:
    """Every decision (or some): both tables against the derived network, and the cheapest one."""
    supernet = ModuleSupernet(net)
    costs = {quantity: supernet.costs(quantity, (x,)) for quantity in ("macs", "params")}
    seen: dict[str, list[float]] = {"macs": [], "params": []}
    for picks in decisions(supernet, some):
        decision = supernet.decision(picks)
        network = supernet.derived(decision)
        true = {"macs": gradnas.macs(network, x), "params": gradnas.num_params(network)}
        for quantity, number in true.items():
            # A decision also names choices that it does not reach: they must not count.
            assert cost_of(supernet, decision, costs[quantity]) == number, (quantity, decision)
            seen[quantity].append(number)
    if some == 1000:
        for quantity, numbers in seen.items():
            assert least_cost(supernet, costs[quantity]) == min(numbers)


# ---- random modules ------------------------------------------------------------------------------


class Twice(nn.Module):
    """Runs a module two times."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        return self.module(torch.tanh(self.module(x)))


class Product(nn.Module):
    """Multiplies what its module gives with a matrix of its own, by a function."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.matrix = nn.Parameter(torch.randn(WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x) @ self.matrix


@st.composite
def modules(draw: st.DrawFn, depth: int = 3, pool: tuple[nn.Module, ...] = ()) -> nn.Module:
    """A module of choices within choices, with layers of `pool` in many places."""
    kinds = ["linear", "identity", "shared"]
    if depth:
        kinds += ["choice", "choice", "choice", "sequence", "twice", "product"]
    kind = draw(st.sampled_from(kinds))
    inner = modules(depth=depth - 1, pool=pool)
    if kind == "linear":
        return linear()
    if kind == "shared":
        return draw(st.sampled_from(pool))
    if kind == "identity":
        return nn.Identity()
    if kind == "sequence":
        return nn.Sequential(*[draw(inner) for _ in range(draw(st.integers(1, 3)))])
    if kind == "twice":
        return Twice(draw(inner))
    if kind == "product":
        return Product(draw(inner))
    name = draw(st.sampled_from([None, None, None, "tied"]))
    return Choice({"a": draw(inner), "b": draw(inner)}, name=name)


@st.composite
def networks(draw: st.DrawFn) -> nn.Module:
    pool = (linear(), nn.Sequential(linear(), nn.ReLU()), nn.Linear(WIDTH, WIDTH, bias=False))
    first = Choice({"a": draw(modules(pool=pool)), "b": draw(modules(pool=pool))}, name="first")
    return nn.Sequential(draw(modules(pool=pool)), first, draw(modules(depth=2, pool=pool)))


@settings(max_examples=60, deadline=None)
@given(networks(), st.randoms(use_true_random=False))
def test_random_modules_cost_what_their_derived_networks_have(net, random):
    supernet = ModuleSupernet(net)
    costs = {quantity: supernet.costs(quantity, (X,)) for quantity in ("macs", "params")}
    sizes = {name: alpha.shape[-1] for name, alpha in supernet.alphas.items()}
    for _ in range(6):
        picks = {name: random.randrange(size) for name, size in sizes.items()}
        decision = supernet.decision(picks)
        network = supernet.derived(decision)
        assert cost_of(supernet, decision, costs["macs"]) == gradnas.macs(network, X)
        assert cost_of(supernet, decision, costs["params"]) == gradnas.num_params(network)


@settings(max_examples=20, deadline=None)
@given(networks(), st.floats(0, 1), st.sampled_from(["macs", "params"]))
def test_random_modules_keep_their_budgets_and_the_best_is_found(net, share, quantity):
    supernet = ModuleSupernet(net)
    if len(supernet.alphas) > 7:
        return
    generator = torch.Generator().manual_seed(0)
    strengths = {}
    for name, alpha in supernet.alphas.items():
        strengths[name] = torch.rand(alpha.shape, generator=generator, dtype=torch.float64)
    costs = supernet.costs(quantity, (X,))
    # By hand: every decision without the choices that it does not reach.
    by_cost: dict[str, tuple[float, float]] = {}
    for picks in decisions(supernet):
        reached = reached_by(net, supernet, picks)
        score = 0.0
        for name in reached:
            p = strengths[name]
            score += float(torch.log(p[picks[name]]) - torch.log(p.max()))
        whole = supernet.decision({name: picks[name] for name in reached})
        by_cost[str(sorted(whole.items()))] = (cost_of(supernet, whole, costs), score)
    numbers = [cost for cost, _ in by_cost.values()]
    limit = min(numbers) + share * (max(numbers) - min(numbers))
    within = [score for cost, score in by_cost.values() if cost <= limit]
    best = next(supernet.ranking(costs, strengths).within(limit))
    cost, score = by_cost[str(sorted(best.items()))]
    assert cost <= limit
    assert score == pytest.approx(max(within), abs=1e-9)
    everything = list(supernet.ranking(costs, strengths).within(1e12))
    assert sorted(str(sorted(found.items())) for found in everything) == sorted(by_cost)


def reached_by(net: nn.Module, supernet: ModuleSupernet, picks: dict[str, int]) -> set[str]:
    from gradnas.spaces.module_choices import reached_choices

    chosen = {name: supernet.names[name][column] for name, column in picks.items()}
    return reached_choices(net, chosen)


# ---- nested choices ------------------------------------------------------------------------------


def deep_nest() -> nn.Module:
    inner = Choice({"u": linear(), "v": nn.Identity()}, name="inner")
    middle = Choice({"p": nn.Sequential(inner, linear()), "q": nn.Identity()}, name="middle")
    return nn.Sequential(Choice({"a": middle, "b": linear()}, name="outer"), linear())


def test_a_choice_that_is_an_operation_is_counted_once():
    supernet = ModuleSupernet(deep_nest())
    costs = supernet.costs("macs", (X[:1],))
    decision = supernet.decision({"outer": 0, "middle": 0, "inner": 0})
    assert cost_of(supernet, decision, costs) == 108
    check(deep_nest())


def test_rests_of_one_structure_that_multiply_differently_are_told_apart():
    class Gram(nn.Module):
        """Its own work depends on how wide the choice inside is."""

        def __init__(self, wide: int) -> None:
            super().__init__()
            self.choice = Choice({"a": nn.Linear(WIDTH, wide), "b": nn.Linear(WIDTH, wide)})

        def forward(self, x: Tensor) -> Tensor:
            inner = self.choice(x)
            return (inner @ inner.T).sum() + x

    net = nn.Sequential(
        Choice({"narrow": Gram(3), "wide": Gram(11)}, name="first"),
        Choice({"wide": Gram(11), "narrow": Gram(3)}, name="second"),
    )
    check(net)
    keys = [unit.key for unit in survey(net, (X,)) if unit.kind == "rest"]
    assert len(keys) == len(set(keys)) == 3


# ---- shared parameters ---------------------------------------------------------------------------


class Slice(nn.Module):
    """The first `width` units of a layer that others have too."""

    def __init__(self, full: nn.Linear, width: int) -> None:
        super().__init__()
        self.full = full
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        narrow = F.linear(x, self.full.weight[: self.width], self.full.bias[: self.width])
        return F.pad(narrow, (0, 64 - self.width))


def slices() -> nn.Module:
    full = nn.Linear(WIDTH, 64)
    widths = {str(width): Slice(full, width) for width in (4, 16, 64)}
    return nn.Sequential(Choice(widths, name="width"), nn.Linear(64, 1))


def tied_to_a_later_layer() -> nn.Module:
    layer = linear()
    first = Choice({"tied": layer, "own": nn.Sequential(linear(), linear())}, name="first")
    return nn.Sequential(first, nn.Tanh(), layer)


def shared_by_two_choices() -> nn.Module:
    layer = linear()
    first = Choice({"shared": layer, "skip": nn.Identity()}, name="first")
    second = Choice({"own": linear(), "shared": layer}, name="second")
    return nn.Sequential(first, nn.Tanh(), second)


def tied_weights() -> nn.Module:
    """One parameter in two layers."""
    one, other = linear(), linear()
    other.weight = one.weight
    first = Choice({"one": one, "skip": nn.Identity()}, name="first")
    return nn.Sequential(first, Choice({"other": other, "own": linear()}, name="second"))


def twice_in_one_choice() -> nn.Module:
    layer = linear()
    choice = Choice({"a": layer, "b": layer, "c": nn.Sequential(layer, linear())}, name="choice")
    return nn.Sequential(choice, linear())


def one_choice_in_two_operations() -> nn.Module:
    inner = Choice({"u": linear(), "v": nn.Sequential(linear(), linear())}, name="inner")
    outer = Choice(
        {"a": nn.Sequential(inner, linear()), "b": nn.Sequential(inner, nn.Tanh()), "c": linear()},
        name="outer",
    )
    return nn.Sequential(outer, linear())


def shared_inside_operations() -> nn.Module:
    layer = linear()
    inner = Choice({"u": layer, "v": nn.Identity()}, name="inner")
    outer = Choice({"deep": nn.Sequential(inner, linear()), "flat": nn.Identity()}, name="outer")
    other = Choice({"shared": nn.Sequential(layer, linear()), "skip": nn.Identity()}, name="other")
    return nn.Sequential(outer, other)


def choice_twice() -> nn.Module:
    choice = Choice({"a": linear(), "b": nn.Identity()}, name="choice")
    return nn.Sequential(choice, nn.Tanh(), choice, linear())


SHARING: list[Callable[[], nn.Module]] = [
    slices,
    tied_to_a_later_layer,
    shared_by_two_choices,
    tied_weights,
    twice_in_one_choice,
    one_choice_in_two_operations,
    shared_inside_operations,
    choice_twice,
]


@pytest.mark.parametrize("make", SHARING, ids=[make.__name__ for make in SHARING])
def test_what_is_shared_counts_once(make):
    check(make())


def test_a_budget_that_slices_of_one_layer_cannot_keep_is_refused():
    example = torch.randn(1, WIDTH)
    with pytest.raises(ValueError, match="the cheapest architecture of this space costs 513"):
        gradnas.Search(slices(), cost=ExpectedCost(budget_params=200), example=example)
    search = gradnas.Search(slices(), cost=ExpectedCost(budget_params=513), example=example)
    result = search.result()
    assert result.cost == 513 == gradnas.num_params(result.derive())


def test_the_expectation_of_a_shared_layer_is_that_over_all_decisions():
    for make in SHARING:
        supernet = ModuleSupernet(make())
        costs = supernet.costs("params", (X,))
        generator = torch.Generator().manual_seed(1)
        p = {}
        for name, alpha in supernet.alphas.items():
            logits = torch.randn(alpha.shape, generator=generator, dtype=torch.float64)
            p[name] = logits.softmax(-1).requires_grad_()
        mean = 0.0
        for picks in decisions(supernet):
            decision = supernet.decision(picks)
            together = 1.0
            for name, column in picks.items():
                together *= p[name][column].item()
            mean += together * cost_of(supernet, decision, costs)
        assert costs.expected(p).item() == pytest.approx(mean, rel=1e-12)
        tables = tuple(p.values())
        assert torch.autograd.gradcheck(
            lambda *tables, costs=costs, names=tuple(p): costs.expected(
                dict(zip(names, tables, strict=True))
            ),
            tables,
        )


def test_budgets_over_shared_layers_are_exact_and_too_many_joint_decisions_are_refused(monkeypatch):
    supernet = ModuleSupernet(shared_by_two_choices())
    with torch.no_grad():
        supernet.alphas["first"].copy_(torch.tensor([0.0, 2.0]))  # likes skip
        supernet.alphas["second"].copy_(torch.tensor([0.1, 0.0]))
    costs = supernet.costs("params", (X,))
    # Both on the shared layer cost as much as one of them.
    found = decide_within(supernet, gradnas.Softmax(), costs, 42, 10)
    assert [dict(decision) for decision in found] == [
        {"first": "skip", "second": "own"},
        {"first": "skip", "second": "shared"},
        {"first": "shared", "second": "shared"},
    ]
    monkeypatch.setattr(budget, "MOST_JOINT", 3)
    with pytest.raises(ValueError, match=r"parameters of the choices 'first', 'second' depend on"):
        least_cost(supernet, costs)


def test_many_choices_may_share_one_layer_in_an_expectation():
    layer = linear()
    choices = [Choice({"a": layer, "b": nn.Identity()}, name=f"c{i:02}") for i in range(24)]
    supernet = ModuleSupernet(nn.Sequential(*choices, linear()))
    costs = supernet.costs("params", (X,))
    p = {name: torch.tensor([0.1, 0.9], dtype=torch.float64) for name in supernet.alphas}
    assert costs.expected(p).item() == pytest.approx(42 + 42 * (1 - 0.9**24))
    with pytest.raises(ValueError, match=r"'c00', 'c01', .* \(16,777,216 at most\) 20,000 can"):
        least_cost(supernet, costs)


def test_tables_of_a_tree_of_choices_are_no_joint_decisions():
    supernet = ModuleSupernet(deep_nest())
    costs = supernet.costs("macs", (X,))
    tables = {name: alpha.detach() for name, alpha in supernet.alphas.items()}
    assert isinstance(costs, Costs)
    assert knapsack(costs, tables).joint == {}


# ---- state that is no setting --------------------------------------------------------------------


class Counter(nn.Module):
    """Counts its calls; in training something else too."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times
        self.calls = 0
        self.steps = 0
        self.last_mean = 0.0
        self.layer = linear()

    def extra_repr(self) -> str:
        return f"calls={self.calls}"

    def forward(self, x: Tensor) -> Tensor:
        self._note(x)
        if self.training:
            self.steps += 1
        for _ in range(self.times):
            x = self.layer(x)
        return x

    def _note(self, x: Tensor) -> None:
        self.calls += 1
        self.last_mean = float(x.mean())


def test_a_layer_that_counts_its_calls_keeps_its_key():
    def net() -> nn.Module:
        return nn.Sequential(Choice({"a": Counter(1), "b": Counter(2)}, name="c"), linear())

    used = net()
    for _ in range(3):
        used(torch.randn(2, WIDTH))
    table = gradnas.measure(used, (X,), gradnas.latency.Timing(warmup=0, repeats=1))
    keys = {unit.key for unit in survey(net(), (torch.randn(2, WIDTH),))}
    assert set(table.entries) == keys
    assert len([key for key in keys if key.startswith("Counter")]) == 2  # `times` is a setting
    search = gradnas.Search(net(), cost=ExpectedCost(table, budget_ms=1e6), example=X)
    assert search.costs.fixed > 0


def test_one_module_in_cells_of_both_kinds_is_refused():
    shared = nn.Conv2d(4, 4, 1)
    made = itertools.count()

    def factory(channels: int, stride: int, affine: bool) -> nn.Module:
        last_edge = next(made) % 5 == 4  # of a cell of two nodes, from a node: stride 1 everywhere
        return shared if last_edge else nn.Conv2d(channels, channels, 1, stride)

    operations = {"own": factory, "skip_connect": gradnas.DARTS_OPERATIONS["skip_connect"]}
    space = gradnas.ConvCell(channels=4, cells=3, nodes=2, operations=operations)
    supernet = space.supernet(3, 5, fused=False)
    with pytest.raises(ValueError, match="'own' is one module in several cells"):
        supernet.costs("params", (torch.randn(1, 3, 8, 8),))


class OneConv(nn.Module):
    """A module of its own on every edge, around one convolution for all of a width."""

    def __init__(self, channels: int, stride: int, convs: dict[int, nn.Module]) -> None:
        super().__init__()
        self.stride = stride
        if channels not in convs:
            convs[channels] = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.conv = convs[channels]

    def forward(self, x):
        return self.conv(x)[..., :: self.stride, :: self.stride]


@pytest.mark.parametrize("quantity", ["params", "macs"])
def test_a_layer_that_all_edges_of_cells_share_counts_once(quantity):
    convs: dict[int, nn.Module] = {}
    operations = {
        "one": lambda channels, stride, affine: OneConv(channels, stride, convs),
        "none": gradnas.DARTS_OPERATIONS["none"],
        "skip_connect": gradnas.DARTS_OPERATIONS["skip_connect"],
    }
    space = gradnas.ConvCell(channels=4, cells=3, nodes=2, operations=operations)
    supernet = space.supernet(3, 5, fused=False)
    image = torch.randn(1, 3, 8, 8)
    costs = supernet.costs(quantity, (image,))
    for seed in range(3):
        decision = space.random_decision(torch.Generator().manual_seed(seed))
        derived = supernet.derived(decision)
        counted = costs.of(supernet.one_hot_draw(decision).mix)
        of_derived = {"params": gradnas.num_params(derived), "macs": gradnas.macs(derived, image)}
        assert counted == of_derived[quantity]
