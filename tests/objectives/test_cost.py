"""Expected costs in the objective, budgets, and the best architecture within one."""

from __future__ import annotations

import io
import itertools
import json
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import gradnas
from gradnas import Choice, ExpectedCost
from gradnas.config import from_json, to_json
from gradnas.derivation import Option, cheapest_cost, ranked_within
from gradnas.latency import Costs, Entry, LatencyTable, Place, mobile_key, survey
from gradnas.objectives import accuracy_latency_reward
from gradnas.objectives.cost import CostState
from gradnas.spaces.affordable import cost_of, decide_within, least_cost
from gradnas.spaces.budget import knapsack
from gradnas.spaces.chains.costs import (
    block_key,
    fixed_keys,
    phone_costs,
)
from tests.cases import RELAXATIONS, TwoChoices, batch, name_of

# ---- the released phone latencies ----------------------------------------------------------------

# Sums over the ImageNet chain that the released table gives (ms), and some of its entries.
FIXED = 11.3642
ALL_33 = 76.0481
ALL_63 = 136.4663
ALL_67 = 191.0299
WITHOUT_OPTIONAL = 29.6088
UNIFORM = 113.9881
KNOWN = {
    mobile_key("Conv", (224, 224, 3), (112, 112, 32)): 4.0838,
    mobile_key("Conv_1", (7, 7, 320), (7, 7, 1280)): 3.0886,
    mobile_key("Logits", (7, 7, 1280), 1000): 0.3096,
    mobile_key("expanded_conv", (112, 112, 32), (112, 112, 16), 1, 3, 1, False): 3.8821,
    mobile_key("expanded_conv", (56, 56, 24), (56, 56, 24), 3, 3, 1, True): 6.2731,
    mobile_key("expanded_conv", (56, 56, 24), (56, 56, 24), 6, 7, 1, True): 18.5406,
    mobile_key("expanded_conv", (7, 7, 192), (7, 7, 192), 3, 3, 1, True): 2.0538,
    mobile_key("expanded_conv", (7, 7, 192), (7, 7, 192), 6, 7, 1, True): 4.6927,
}


def _phone_table(space: gradnas.MBConvChain) -> dict[str, dict[str, float]]:
    """A table of the released grammar: the known entries, and others that give the known sums.

    The released sums and samples do not determine the other entries, so those of one kind are equal
    here.
    """
    ms = dict(KNOWN)
    # The last digit.
    ms[mobile_key("Conv", (224, 224, 3), (112, 112, 32))] += FIXED - sum(list(KNOWN.values())[:4])
    fixed_blocks = [b for b in space.blocks if not b.keeps_shape]
    optional = [b for b in space.blocks if b.keeps_shape]

    def fill(blocks, operation, total):
        keys = [block_key(block, operation) for block in blocks]
        unknown = [key for key in keys if key not in ms]
        rest = (total - sum(ms[key] for key in keys if key in ms)) / len(unknown)
        ms.update(dict.fromkeys(unknown, rest))

    fill(fixed_blocks, "mb3_k3", WITHOUT_OPTIONAL - FIXED)
    fill(optional, "mb3_k3", ALL_33 - WITHOUT_OPTIONAL)
    fill(space.blocks, "mb6_k3", ALL_63 - FIXED)
    fill(space.blocks, "mb6_k7", ALL_67 - FIXED)
    # With equal probabilities a block with Zero counts 1/7 of each of its operations, another 1/6.
    seen = sum(
        ms[block_key(b, o)] / (7 if b.keeps_shape else 6)
        for b in space.blocks
        for o in ("mb3_k3", "mb6_k3")
    )
    seen += sum(ms[block_key(b, "mb6_k7")] / (7 if b.keeps_shape else 6) for b in space.blocks)
    left = (UNIFORM - FIXED - seen) / 3 / (len(optional) / 7 + len(fixed_blocks) / 6)
    for block in space.blocks:
        for operation in ("mb3_k5", "mb6_k5", "mb3_k7"):
            ms[block_key(block, operation)] = left
    assert all(value > 0 for value in ms.values())
    return {key: {"count": 1, "mean": value, "var": 0.0} for key, value in ms.items()}


@pytest.fixture(scope="module")
def phone(tmp_path_factory):
    space = gradnas.MBConvChain()
    path = tmp_path_factory.mktemp("phone") / "phone.json"
    path.write_text(json.dumps(_phone_table(space)))
    supernet = space.supernet(3, 1000)
    table = LatencyTable.load(path)
    return space, supernet, supernet.costs("latency", (), table), table


def test_sums_of_the_released_phone_latencies(phone):
    space, supernet, costs, table = phone
    # 11 block shapes x 6, and the 4 fixed parts.
    assert table.is_mobile and len(table.entries) == 70
    assert costs.fixed == pytest.approx(FIXED, abs=1e-9)

    def total(operation, optional=None):
        chosen = [(optional or operation) if b.keeps_shape else operation for b in space.blocks]
        picks = {b.name: b.candidates.index(o) for b, o in zip(space.blocks, chosen, strict=True)}
        return cost_of(supernet, supernet.decision(picks), costs)

    assert total("mb3_k3") == pytest.approx(ALL_33, abs=1e-9)
    assert total("mb6_k3") == pytest.approx(ALL_63, abs=1e-9)
    assert total("mb6_k7") == pytest.approx(ALL_67, abs=1e-9)
    assert total("mb3_k3", "zero") == pytest.approx(WITHOUT_OPTIONAL, abs=1e-9)
    uniform = {
        name: torch.full(a.shape, 1.0 / a.numel(), dtype=torch.float64)
        for name, a in supernet.alphas.items()
    }
    assert costs.expected(uniform).item() == pytest.approx(UNIFORM, abs=1e-9)


def test_a_phone_table_without_a_needed_key_and_a_space_it_cannot_express(phone):
    space, supernet, _, table = phone
    key = block_key(space.blocks[5], "mb6_k5")
    lacking = LatencyTable({k: e for k, e in table.entries.items() if k != key})
    with pytest.raises(
        ValueError, match=r"no entry for mb6_k5 of block06: 'expanded_conv-input:28x28x40"
    ):
        supernet.costs("latency", (), lacking)
    with pytest.raises(ValueError, match="no entry for stem"):
        phone_costs(gradnas.MBConvChain(image_size=192).shape, table, {}, 1000, 3)
    with pytest.raises(ValueError, match="no key for 'identity' where the shape changes"):
        phone_costs(
            gradnas.MBConvChain(candidates=("mb3_k3", "identity")).shape, table, {}, 1000, 3
        )


def test_a_predictor_on_a_phone_table_fills_what_it_lacks(phone):
    from gradnas.latency.fit import fit

    space, supernet, full, table = phone
    key = block_key(space.blocks[5], "mb6_k5")
    kept = {k: e for k, e in table.entries.items() if k != key}
    fitted = LatencyTable(
        kept, predictor=fit([e.features for e in kept.values()], [e.ms for e in kept.values()])
    )
    costs = supernet.costs("latency", (), fitted)
    assert "predicted, not measured: 1 of 70 latencies" in costs.notes[0]
    assert costs.tables["block06"][3] > 0 and torch.equal(
        costs.tables["block01"], full.tables["block01"]
    )
    assert fixed_keys(space.shape, 1000)["classifier"] == "Logits-input:7x7x1280-output:1000"


def test_the_gradient_of_the_expected_latency_is_the_numerical_one(phone):
    _, supernet, costs, _ = phone
    generator = torch.Generator().manual_seed(0)
    names = list(supernet.alphas)
    alphas = [
        torch.randn(a.shape, generator=generator, dtype=torch.float64).requires_grad_()
        for a in supernet.alphas.values()
    ]

    def expected(*tables):
        draw = gradnas.Softmax().draw(dict(zip(names, tables, strict=True)), {}, 0.0)
        return costs.expected(draw.probabilities)

    assert torch.autograd.gradcheck(expected, alphas, eps=1e-6, atol=1e-6)


def test_expected_cost_of_nested_choices_is_the_mean_over_architectures():
    inner = Choice({"a": nn.Conv2d(4, 4, 1), "b": nn.Conv2d(4, 4, 3, padding=1)}, name="inner")
    outer = Choice(
        {"deep": nn.Sequential(inner, nn.Conv2d(4, 4, 1)), "skip": nn.Identity()}, name="outer"
    )
    search = gradnas.Search(nn.Sequential(nn.Conv2d(3, 4, 1), outer))
    costs = search.supernet.costs("macs", (batch(0, size=1)[0],))
    p = {
        name: torch.tensor(own, dtype=torch.float64)
        for name, own in (("inner", [0.3, 0.7]), ("outer", [0.4, 0.6]))
    }
    mean = 0.0
    for i, o in itertools.product(range(2), range(2)):
        decision = search.supernet.decision({"inner": i, "outer": o})
        mean += (p["inner"][i] * p["outer"][o]).item() * cost_of(search.supernet, decision, costs)
    assert costs.expected(p).item() == pytest.approx(mean, rel=1e-12)
    p = {name: table.requires_grad_() for name, table in p.items()}
    assert torch.autograd.gradcheck(
        lambda a, b: costs.expected({"inner": a, "outer": b}), tuple(p.values())
    )


# ---- forms ---------------------------------------------------------------------------------------


START = CostState()


def _value(cost, task, expected, state=START):
    task_t = torch.tensor(task, dtype=torch.float64)
    expected_t = torch.tensor(expected, dtype=torch.float64, requires_grad=True)
    loss = cost.combine(task_t, expected_t, state)
    (grad,) = torch.autograd.grad(loss, expected_t)
    return loss.item(), grad.item()


def test_forms_are_those_of_the_original_script():
    table = LatencyTable({})
    loss, grad = _value(ExpectedCost(table, target_ms=80), 2.0, 114.0)
    assert loss == pytest.approx(0.2 * 2.0 * (math.log(114) / math.log(80)) ** 0.3)
    assert grad == pytest.approx(
        0.4 * 0.3 * (math.log(114) / math.log(80)) ** -0.7 / math.log(80) / 114
    )
    loss, grad = _value(ExpectedCost(table, target_ms=80, form="add#linear"), 2.0, 114.0)
    assert (loss, grad) == (pytest.approx(2.0 + 0.1 * 34 / 80), pytest.approx(0.1 / 80))
    # Multiply-adds are not told in millions: `ref_value = 300 * 1e6` in the original script.
    loss, grad = _value(ExpectedCost(target_macs=300e6), 2.0, 500e6)
    assert loss == pytest.approx(0.4 * (math.log(500e6) / math.log(300e6)) ** 0.3)
    assert grad == pytest.approx(
        0.4 * 0.3 * (math.log(500e6) / math.log(300e6)) ** -0.7 / math.log(300e6) / 500e6
    )
    loss, _ = _value(ExpectedCost(target_params=3e6), 2.0, 4e6)
    assert loss == pytest.approx(0.4 * (math.log(4e6) / math.log(3e6)) ** 0.3)


@pytest.mark.parametrize("target", [1e-3, 0.5, 1.0, 2.0, 80.0])
@pytest.mark.parametrize("share", [1e-6, 0.01, 0.5, 1.0, 3.0])
def test_the_logarithmic_form_is_finite_for_any_latency_and_target(target, share):
    loss, grad = _value(ExpectedCost(LatencyTable({}), target_ms=target), 1.0, share * target)
    assert math.isfinite(loss) and math.isfinite(grad) and loss > 0 and grad >= 0
    if share >= 0.5 and target != 1e-3 and target < math.e:
        assert grad > 0


def test_a_budget_is_an_augmented_lagrangian_and_its_multiplier_is_a_state():
    cost = ExpectedCost(LatencyTable({}), budget_ms=8.0, multiplier_lr=0.1, penalty=2.0)
    state = CostState(0.3)
    loss, grad = _value(cost, 1.0, 10.0, state)  # g = 0.25
    assert loss == pytest.approx(1.0 + ((0.3 + 2 * 0.25) ** 2 - 0.3**2) / 4)
    assert grad == pytest.approx((0.3 + 2 * 0.25) / 8)
    assert _value(cost, 1.0, 1.0, state)[1] == 0.0  # far inside: no pull
    assert cost.advanced(state, 10.0) == CostState(pytest.approx(0.325))
    assert cost.advanced(state, 0.8).multiplier == pytest.approx(0.21)
    assert cost.advanced(CostState(), 1.0) == CostState()
    target = ExpectedCost(LatencyTable({}), target_ms=8.0)
    assert target.advanced(state, 10.0) == state


def test_the_reward_of_accuracy_and_latency():
    assert accuracy_latency_reward(0.7, 80.0, 80.0) == 0.7
    assert accuracy_latency_reward(0.7, 100.0, 80.0) == pytest.approx(0.7 * 0.8**0.1)
    assert accuracy_latency_reward(0.7, 100.0, 80.0, exponent=1.0) == pytest.approx(0.56)
    with pytest.raises(ValueError, match="latency_ms"):
        accuracy_latency_reward(0.7, 0.0, 80.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "exactly one of"),
        ({"budget_ms": 1.0, "target_macs": 2.0}, "got budget_ms, target_macs"),
        ({"budget_ms": -8.0, "table": "t.json"}, "budget_ms must be above 0, not -8"),
        ({"budget_macs": 0.0}, "budget_macs must be above 0"),
        ({"target_params": math.nan}, "target_params must be above 0"),
        ({"target_ms": 8.0}, "needs a latency table"),
        ({"target_macs": 8.0, "form": "mul"}, "form must be"),
        ({"target_macs": 8.0, "penalty": 0.0}, "penalty must be above 0"),
    ],
)
def test_a_cost_that_makes_no_sense_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        ExpectedCost(**settings)


def test_a_cost_is_part_of_a_configuration_file():
    for cost in (
        ExpectedCost("t.json", budget_ms=8.0, penalty=3.0),
        ExpectedCost(target_macs=1e6, form="add#linear"),
    ):
        data = json.loads(json.dumps(to_json(cost)))
        again = from_json(ExpectedCost, data)
        assert (
            to_json(again) == data and again.limit == cost.limit and again.quantity == cost.quantity
        )
    with pytest.raises(ValueError, match="by its path"):
        to_json(ExpectedCost(LatencyTable({}), budget_ms=8.0))
    with pytest.raises(ValueError, match="did you mean 'budget_ms'"):
        from_json(ExpectedCost, {"budgetms": 8.0})
    with pytest.raises(ValueError, match="path of a latency table"):
        from_json(ExpectedCost, {"table": {}, "budget_ms": 8.0})


# ---- the best within a budget --------------------------------------------------------------------

NUMBERS = st.sampled_from([-2.0, -1.0, -0.5, 0.0]) | st.floats(-3, 0)
COSTS = st.sampled_from([0.0, 1.0, 2.0]) | st.floats(0, 3)
OPTION = st.builds(Option, NUMBERS, COSTS)
LEAVES = st.lists(OPTION, min_size=1, max_size=4)


def _all(choices):
    """Every combination: (score, cost, picks)."""
    found = [(0.0, 0.0, {})]
    for name, options in choices.items():
        grown = []
        for score, cost, picks in found:
            for k, option in enumerate(options):
                for s, c, inner in _all(option.inside):
                    grown.append(
                        (
                            score + option.score + s,
                            cost + option.cost + c,
                            {**picks, name: k, **inner},
                        )
                    )
        found = grown
    return found


def _nested(groups, inner):
    """Choices, with more of them inside the first option of the first."""
    choices = {f"c{i}": options for i, options in enumerate(groups)}
    inside = {f"i{i}": options for i, options in enumerate(inner)}
    choices["c0"] = [
        Option(choices["c0"][0].score, choices["c0"][0].cost, inside),
        *choices["c0"][1:],
    ]
    return choices


@settings(max_examples=200, deadline=None)
@given(st.lists(LEAVES, min_size=1, max_size=4), st.lists(LEAVES, max_size=2), st.floats(-0.5, 8))
def test_the_best_within_a_budget_is_the_best_of_all(groups, inner, budget):
    choices = _nested(groups, inner)
    combinations = _all(choices)
    assert cheapest_cost(choices) == pytest.approx(min(cost for _, cost, _ in combinations))
    within = [score for score, cost, _ in combinations if cost <= budget]
    try:
        picks = next(ranked_within(choices, budget))
    except ValueError as error:
        assert not within and "the cheapest costs" in str(error)
        return
    (score, cost) = next((s, c) for s, c, p in combinations if p == picks)
    assert cost <= budget * (1 + 1e-9)
    assert not within or score == pytest.approx(max(within), abs=1e-9)


@settings(max_examples=100, deadline=None)
@given(st.lists(LEAVES, min_size=1, max_size=3), st.lists(LEAVES, max_size=2), st.floats(-0.5, 8))
def test_all_architectures_within_a_budget_come_once_and_in_order(groups, inner, budget):
    choices = _nested(groups, inner)
    within = [
        (score, picks) for score, cost, picks in _all(choices) if cost <= budget * (1 + 1e-12)
    ]
    if not within:
        with pytest.raises(ValueError, match="the cheapest costs"):
            list(ranked_within(choices, budget))
        return
    ranked = list(ranked_within(choices, budget))
    assert sorted(map(repr, map(sorted, map(dict.items, ranked)))) == sorted(
        repr(sorted(picks.items())) for _, picks in within
    )
    scores = [next(score for score, picks in within if picks == found) for found in ranked]
    assert scores == pytest.approx(sorted(scores, reverse=True), abs=1e-9)
    assert scores[0] == pytest.approx(max(score for score, _ in within), abs=1e-9)


def test_a_budget_that_does_not_bind_changes_nothing_even_with_choices_inside():
    # The likelier operation wins although it opens another choice, which multiplies its
    # probability.
    p = {
        "outer": torch.tensor([0.4, 0.6]).double().flip(0),
        "inner": torch.full((4,), 0.25).double(),
    }
    tables = {"outer": torch.zeros(2).double(), "inner": torch.zeros(4).double()}
    nested = {(Place("outer", 0, 0), Place("inner", 0, k)): 1.0 + k for k in range(4)}
    costs = Costs("macs", 0.0, tables, nested)
    assert next(knapsack(costs, p).ranked(10.0)) == {"outer": 0, "inner": 0}
    assert next(knapsack(costs, p).ranked(0.5)) == {"outer": 1}


# ---- searches ------------------------------------------------------------------------------------


def _losses(seed: int):
    x, y = batch(seed)
    return lambda net: F.cross_entropy(net(x), y)


def _search(relaxation=RELAXATIONS[0], **limit):
    torch.manual_seed(0)
    cost = ExpectedCost(**(limit or {"budget_macs": 9500.0}), multiplier_lr=0.05, penalty=1.0)
    alphas = gradnas.AlphaOptimizer(lr=0.1, betas=(0.0, 0.999), weight_decay=0.0)
    example = batch(0, size=1)[0]
    return gradnas.Search(
        TwoChoices(), relaxation, alphas=alphas, cost=cost, example=example, epochs=3
    )


@pytest.mark.parametrize("relaxation", RELAXATIONS, ids=name_of)
def test_every_relaxation_searches_within_a_budget(relaxation):
    search = _search(relaxation)
    before = search.expected_cost()
    for i in range(12):
        search.step(_losses(2 * i), _losses(2 * i + 1))
        assert i > 0 or search.spending.state.multiplier > 0
    result = search.result()
    assert search.expected_cost() < before
    assert result.cost <= 9500.0
    assert result.cost == gradnas.macs(result.derive(), batch(0, size=1)[0])
    assert search.result(budget=1e9).choices == search.supernet.decide(search.relaxation)
    with pytest.raises(
        ValueError, match=r"no architecture is within the budget of 10 multiply-adds: the cheapest"
    ):
        search.result(budget=10)


def test_the_multiplier_moves_with_the_learning_rate_of_the_alphas():
    alphas, example = gradnas.AlphaOptimizer(lr=0.02), batch(0, size=1)[0]
    free = gradnas.Search(
        TwoChoices(), alphas=alphas, cost=ExpectedCost(budget_macs=9500.0), example=example
    )
    free.step(_losses(0), _losses(1))
    excess = free.expected_cost() / 9500.0 - 1.0
    assert free.spending.state.multiplier == pytest.approx(0.03 * 0.02 * excess) and excess > 0
    fixed = ExpectedCost(budget_macs=9500.0, multiplier_lr=0.5)
    assert gradnas.Search(TwoChoices(), alphas=alphas, cost=fixed, example=example).cost == fixed
    assert from_json(ExpectedCost, ExpectedCost(budget_macs=9500.0).to_json()).multiplier_lr is None


def test_the_most_probable_architectures_within_a_budget_are_candidates():
    search = _search()
    for alpha in search.alphas.values():
        nn.init.normal_(alpha)
    found = search.results(4)
    assert (
        found[0].choices == search.result().choices
        and len({str(r.choices) for r in found}) == len(found) > 1
    )
    assert all(r.cost == gradnas.macs(r.derive(), batch(0, size=1)[0]) <= 9500.0 for r in found)
    everything = search.results(10_000, budget=1e9)
    assert len(everything) == len({str(r.choices) for r in everything}) > len(found)
    with pytest.raises(ValueError, match="number must be at least 1, not 0"):
        search.results(0)
    with pytest.raises(ValueError, match="has no budget: say within which"):
        _search(target_macs=9500.0).results(2)
    with pytest.raises(ValueError, match="a budget needs costs"):
        gradnas.Search(TwoChoices()).results(2, budget=1.0)


def test_a_budget_holds_where_a_target_only_pulls():
    def wants_the_dearest(net):
        return (
            F.cross_entropy(net(batch(1)[0]), batch(1)[1])
            - 2.0 * net.draw.probabilities["first"][1]
        )

    budget, target = _search(), _search(target_macs=9500.0, form="add#linear")
    for i in range(80):
        for search in (budget, target):
            search.step(_losses(i), wants_the_dearest)
    assert budget.expected_cost() < 1.05 * 9500.0 < 1.5 * 9500.0 < target.expected_cost()
    assert budget.result().cost <= 9500.0 < target.result().cost
    assert target.spending.state == CostState() and budget.spending.state.multiplier > 1.0


def test_a_search_with_a_budget_goes_on_exactly_from_its_state():
    whole = _search()
    for i in range(8):
        if i == 4:
            state = whole.state_dict()
            saved = {k: v if not isinstance(v, dict) else dict(v) for k, v in state.items()}
            other = _search()
            buffer = io.BytesIO()
            torch.save(saved, buffer)
            other.load_state_dict(torch.load(io.BytesIO(buffer.getvalue()), weights_only=True))
            assert (
                other.spending.state == whole.spending.state and other.spending.state.multiplier > 0
            )
        whole.step(_losses(2 * i), _losses(2 * i + 1))
        if i >= 4:
            other.step(_losses(2 * i), _losses(2 * i + 1))
    assert whole.spending.state == other.spending.state
    assert all(torch.equal(a, other.alphas[name]) for name, a in whole.alphas.items())


def test_a_warm_up_leaves_the_multiplier_alone():
    search = _search()
    search.schedule.warmup_epochs = 1
    search.step(_losses(0), _losses(1))
    assert search.spending.state == CostState()


def test_a_budget_that_cannot_be_kept_is_refused_at_once():
    with pytest.raises(
        ValueError, match=r"budget_macs=100 cannot be kept: the cheapest architecture .* costs 4484"
    ):
        _search(budget_macs=100.0)
    with pytest.raises(ValueError, match="example"):
        gradnas.Search(TwoChoices(), cost=ExpectedCost(budget_macs=9500.0))
    with pytest.raises(ValueError, match="a budget needs costs"):
        gradnas.Search(TwoChoices()).result(budget=3.0)


def test_a_table_of_another_device_is_a_warning_that_names_both():
    x = batch(0, size=1)[0]
    entries = {u.key: Entry(0.5, 0.1, 3) for u in survey(TwoChoices(), (x,))}
    table = LatencyTable(entries, gradnas.latency.Device("cuda", "Some GPU"))
    here = gradnas.latency.Device.here(torch.device("cpu")).name
    with pytest.warns(UserWarning) as caught:
        gradnas.Search(TwoChoices(), cost=ExpectedCost(table, budget_ms=9.0), example=x)
    assert any("Some GPU" in str(w.message) and here in str(w.message) for w in caught)


def test_a_space_that_does_not_know_its_costs_says_so():
    class Bare(gradnas.spaces.Supernet):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 2)
            self.alphas = nn.ParameterDict({"a": nn.Parameter(torch.zeros(2))})

        def forward(self, x, *, draw=None):
            return self.layer(x)

        decide = skip_count = derived = lambda self, *args: None

    with pytest.raises(ValueError, match="Bare does not say what its operations cost"):
        gradnas.Search(Bare(), cost=ExpectedCost(budget_macs=9500.0), example=torch.zeros(1, 2))


def test_reinforce_keeps_a_budget_by_the_gradient_of_the_expected_cost():
    torch.manual_seed(0)
    search = gradnas.Search(
        TwoChoices(),
        gradnas.BinaryGates(),
        gradnas.Reinforce(samples=4),
        alphas=gradnas.AlphaOptimizer(lr=0.1, betas=(0.0, 0.999), weight_decay=0.0),
        cost=ExpectedCost(budget_macs=9500.0, multiplier_lr=0.05, penalty=1.0),
        example=batch(0, size=1)[0],
    )
    # No reward: the budget alone.
    grads, _, _ = search.rewards.gradient(lambda net: net(batch(0)[0]).sum() * 0.0)
    tables = {name: a.detach().double().requires_grad_() for name, a in search.alphas.items()}
    expected = search.costs.expected({name: torch.softmax(a, -1) for name, a in tables.items()})
    term = search.cost.combine(torch.zeros(()).double(), expected, search.spending.state)
    for grad, own in zip(
        torch.autograd.grad(term, [*tables.values()]), grads.values(), strict=True
    ):
        assert torch.allclose(grad.float(), own, rtol=1e-4, atol=1e-7) and own.abs().sum() > 0
    for i in range(40):
        search.step(_losses(2 * i), _losses(2 * i + 1))
    assert search.expected_cost() < 9800.0 and search.result().cost <= 9500.0


# ---- cells ---------------------------------------------------------------------------------------


def test_cells_cost_what_their_derived_network_costs_and_keep_budgets():
    space = gradnas.ConvCell(channels=4, cells=3, nodes=2)
    torch.manual_seed(0)
    supernet, x = space.supernet(3, 5), torch.randn(1, 3, 8, 8)
    costs = {quantity: supernet.costs(quantity, (x,)) for quantity in ("macs", "params")}
    generator = torch.Generator().manual_seed(1)
    for _ in range(4):
        genotype = space.random_decision(generator)
        network = supernet.derived(genotype)
        assert cost_of(supernet, genotype, costs["macs"]) == gradnas.macs(network, x)
        assert cost_of(supernet, genotype, costs["params"]) == gradnas.num_params(network)
    for alpha in supernet.alphas.values():
        nn.init.normal_(alpha)
    free = supernet.decide()
    softmax, own = gradnas.Softmax(), costs["macs"]
    assert decide_within(supernet, softmax, own, 1e12) == [free]
    least, most = least_cost(supernet, own), cost_of(supernet, free, own)
    for share in (0.0, 0.3, 0.7):
        budget = least + share * (most - least)
        ranked = decide_within(supernet, softmax, own, budget, 5)
        assert len(set(ranked)) == 5 and all(
            cost_of(supernet, genotype, own) <= budget for genotype in ranked
        )
    with pytest.raises(ValueError, match="the cheapest costs"):
        decide_within(supernet, softmax, own, 0.9 * least)
