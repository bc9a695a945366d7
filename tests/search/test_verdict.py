"""The verdict of a search: what is measured, what is judged, and that nothing changes by it."""

from __future__ import annotations

import itertools
import json
import math
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import gradnas
from gradnas import Choice, Search
from gradnas.architectures.choices import Choices
from gradnas.search.comparing import Judge, compare
from gradnas.search.judging import judge_of_loaders, verdict_after
from gradnas.search.slices import measured_by_group
from gradnas.search.verdict import (
    FEWEST_GROUPS,
    Candidate,
    Difference,
    Judged,
    Scores,
    Verdict,
    Yardstick,
)
from gradnas.search.verdict_limits import (
    ASKED,
    SHARE,
    Limit,
    Plan,
    planned,
    planned_within,
    wanted_of,
    work_of,
)
from gradnas.spaces.affordable import likeliest, swaps

WIDTH = 8


class Sees(nn.Module):
    """Reads some columns alone."""

    def __init__(self, first: int) -> None:
        super().__init__()
        self.first = first
        self.linear = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU())

    def forward(self, x):
        return self.linear(x[:, self.first : self.first + 4])


def net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    choice = Choice({"blind": Sees(4), "sees": Sees(0), "other": Sees(4)}, name="body")
    return nn.Sequential(choice, nn.Linear(8, 2))


def loaders(seed: int = 0, rows: int = 256):
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(2):
        x = torch.randn(rows, WIDTH, generator=generator)
        data = TensorDataset(x, (x[:, :4].sum(1) > 0).long())
        found.append(DataLoader(data, 32, shuffle=True, generator=generator))
    return found


def searched(candidates: int | None = 8) -> tuple[Search, gradnas.SearchResult]:
    search = Search(net(), alphas=gradnas.AlphaOptimizer(lr=0.01))
    result = search.fit(
        *loaders(), loss=F.cross_entropy, epochs=8, progress=False, candidates=candidates
    )
    return search, result


# ---- noise ---------------------------------------------------------------------------------------


def test_the_noise_is_that_of_a_paired_t_interval():
    generator = torch.Generator().manual_seed(0)
    one = torch.randn(12, generator=generator, dtype=torch.float64)
    other = one + 0.3 + 0.1 * torch.randn(12, generator=generator, dtype=torch.float64)
    ones = (1.0,) * 12
    found = Difference.of(
        Scores(tuple(one.tolist()), ones), Scores(tuple(other.tolist()), ones), False
    )
    gains = other - one  # less is better
    assert found.value == pytest.approx(gains.mean().item())
    error = gains.std().item() / math.sqrt(12)
    assert found.noise == pytest.approx(2.201 * error, rel=0.01)  # Student's t for 11 degrees
    assert found.is_clear
    back = Difference.of(
        Scores(tuple(one.tolist()), ones), Scores(tuple(other.tolist()), ones), True
    )
    assert back.value == -found.value and not back.is_clear


def test_of_few_groups_nothing_is_known_about_the_noise():
    scores = Scores((1.0, 2.0, 3.0), (1.0, 1.0, 1.0))
    worse = Scores((5.0, 6.0, 7.0), (1.0, 1.0, 1.0))
    difference = Difference.of(scores, worse, False)
    assert difference.value == 4.0
    assert math.isinf(difference.noise) and not difference.is_clear


def test_a_large_difference_of_unknown_noise_is_not_called_small():
    def told(noise):
        better = Candidate("b", 0.7, 0.4, noise)
        judged = Judged("c", "a", 0.5, "b", -0.4, noise, "undecided")
        measure = Yardstick("accuracy", higher_is_better=True)
        verdict = Verdict(
            measure, 100, 2, None, 0.3, (Candidate("a", 0.3), better), 2, choices=(judged,)
        )
        return verdict.sentence

    assert "examples in 2 groups do not show the noise" in told(None)
    assert "has accuracy 0.7, the derived one 0.3, which may be noise" in told(None)
    assert "is not better than its best alternative by more than the noise" in told(0.5)


def test_groups_of_two_that_differ_are_compared_where_both_end():
    one = Scores((1.0, 3.0, 5.0, 7.0, 2.0), (2.0, 2.0, 2.0, 2.0, 8.0))
    other = Scores((1.0, 2.0, 4.0), (8.0, 16 / 3, 8 / 3))
    difference = Difference.of(one, other, True)
    assert difference.value == pytest.approx((4.0 * 8 + 2.0 * 8 - 1.0 * 8 - 8 / 3 * 8) / 16)
    assert Difference.of(other, one, True).value == pytest.approx(-difference.value)


def test_a_measure_that_is_a_mean_of_some_examples_is_compared():
    """Of a batch that is measured whole for one architecture and in groups for another."""
    search, _ = searched(candidates=0)

    def error_of_some(outputs, target):
        seen = target == 0
        return ((outputs.argmax(1) != target) * seen).sum() / seen.sum().clamp(min=1)

    verdict = search.compare(*loaders(), F.cross_entropy, measure=gradnas.lower(error_of_some))
    assert len(verdict.candidates) > 1 and 0.0 <= verdict.derived <= 1.0


def test_groups_of_a_batch_average_to_the_whole():
    outputs = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    target = torch.arange(50) % 3

    def loss(outputs, target):
        return F.cross_entropy(outputs, target).item()

    groups = measured_by_group(loss, outputs, target, 50)
    assert len(groups) == 12
    assert sum(weight for _, weight in groups) == pytest.approx(50)
    mean = sum(value * weight for value, weight in groups) / 50
    assert mean == pytest.approx(loss(outputs, target), rel=1e-5)


@pytest.mark.parametrize(
    "function",
    [
        lambda o, t: F.cross_entropy(o, t, reduction="sum").item(),
        lambda o, t: float(o.max()),
        lambda o, t: float(1 / (len(o) == 50)),
    ],
    ids=["a sum", "a maximum", "fails on parts"],
)
def test_what_is_no_mean_over_examples_is_one_group(function):
    outputs = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    groups = measured_by_group(function, outputs, torch.arange(50) % 3, 50)
    assert groups == [(function(outputs, torch.arange(50) % 3), 50.0)]


def test_outputs_that_do_not_belong_to_examples_are_one_group():
    groups = measured_by_group(lambda o, t: 1.0, torch.randn(3, 50), torch.arange(50), 50)
    assert groups == [(1.0, 50.0)]


# ---- which architectures -------------------------------------------------------------------------


def nested() -> nn.Module:
    inner = Choice({"a": nn.Linear(4, 4), "b": nn.Tanh()}, name="inner")
    outer = Choice({"deep": inner, "skip": nn.Identity(), "flat": nn.Linear(4, 4)}, name="outer")
    return nn.Sequential(outer, Choice({"x": nn.Tanh(), "y": nn.ReLU()}, name="last"))


def test_the_likeliest_are_those_of_the_largest_products():
    torch.manual_seed(3)
    search = Search(
        nn.Sequential(
            *[
                Choice({name: nn.Linear(4, 4) for name in "abcd"[: 2 + k]}, name=f"c{k}")
                for k in range(3)
            ]
        )
    )
    for alpha in search.alphas.values():
        alpha.data = torch.randn(alpha.shape)
    probabilities = search.result().probabilities
    products = {}
    for picks in itertools.product(*[list(table.items()) for table in probabilities.values()]):
        decision = dict(zip(probabilities, [name for name, _ in picks], strict=True))
        products[tuple(decision.items())] = math.prod(p for _, p in picks)
    wanted = sorted(products, key=lambda key: -products[key])
    found = list(likeliest(search.supernet, search.relaxation, None, None))
    assert [tuple(dict(decision).items()) for decision in found] == wanted


def test_swaps_differ_from_the_best_in_one_choice_and_are_the_likeliest_such():
    search = Search(nested())
    search.alphas["outer"].data = torch.tensor([2.0, 1.0, 0.0])
    search.alphas["inner"].data = torch.tensor([0.0, 0.5])
    search.alphas["last"].data = torch.tensor([0.0, 1.0])
    assert search.result().choices == {"outer": "deep", "inner": "b", "last": "y"}
    found = [dict(decision) for decision in swaps(search.supernet, search.relaxation, None, None)]
    assert found == [
        {"outer": "skip", "last": "y"},
        {"inner": "a", "outer": "deep", "last": "y"},
        {"inner": "b", "outer": "deep", "last": "x"},
    ]


@pytest.mark.parametrize(
    "supernet",
    [
        lambda: gradnas.ConvCell(channels=4, cells=2, nodes=2).supernet(1, 3),
        lambda: gradnas.MBConvChain.named("nas-bench-macro").supernet(3, 4),
        lambda: gradnas.RecurrentCell(hidden=6, embedding=6, nodes=3).supernet(9),
    ],
    ids=["cells", "chains", "recurrent"],
)
def test_spaces_list_their_architectures_and_swap_each_choice(supernet):
    torch.manual_seed(0)
    search = Search(supernet())
    for alpha in search.alphas.values():
        alpha.data = torch.randn(alpha.shape)
    best = search.result().decision
    first = list(itertools.islice(likeliest(search.supernet, search.relaxation, None, None), 6))
    assert first[0] == best and len(set(first)) == 6
    swapped = list(swaps(search.supernet, search.relaxation, None, None))
    assert len(swapped) == len(best.parts())
    for decision, name in zip(swapped, best.parts(), strict=True):
        other = decision.parts()
        assert [key for key in other if other[key] != best.parts()[key]] == [name]
    drawn = search.supernet.random_decision(torch.Generator().manual_seed(0))
    assert set(drawn.parts()) == set(best.parts())


def test_candidates_and_random_ones_keep_the_budget():
    model = nn.Sequential(
        *[
            Choice({"small": nn.Linear(4, 4), "large": Two(16), "huge": Two(64)}, name=f"c{k}")
            for k in range(3)
        ],
        nn.Linear(4, 2),
    )
    x = torch.randn(64, 4)
    y = (x[:, 0] > 0).long()
    search = Search(model, cost=gradnas.ExpectedCost(budget_macs=300), example=x[:1])
    for alpha in search.alphas.values():
        alpha.data = torch.tensor([0.0, 1.0, 3.0])
    batches = [(x, y)]
    verdict = search.compare(batches, batches, F.cross_entropy, candidates=8, random=4)
    assert len(verdict.candidates) >= 3 and len(verdict.random) == 4
    for candidate in verdict.candidates:
        draw = search.supernet.one_hot_draw(candidate.decision)
        assert search.costs.of(draw.mix) <= 300


class Two(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, width), nn.Linear(width, 4))

    def forward(self, x):
        return self.layers(x)


# ---- what is measured ----------------------------------------------------------------------------


def test_a_verdict_measures_derived_networks_with_recalibrated_statistics():
    search, _ = searched(candidates=0)
    train, valid = loaders()
    train = list(train)
    valid = list(valid)
    verdict = search.compare(train, valid, F.cross_entropy, candidates=3, random=2)
    assert verdict.likeliest == 3 and verdict.has_all and verdict.recalibrated
    assert verdict.examples == 256 and verdict.groups == 64
    for candidate in verdict.candidates:
        network = search.supernet.derived(candidate.decision)
        result = gradnas.SearchResult(candidate.decision, search.supernet)
        network = result.derive(recalibrate=train).eval()
        with torch.no_grad():
            loss = sum(F.cross_entropy(network(x), y).item() for x, y in valid) / len(valid)
        assert candidate.value == pytest.approx(loss, rel=1e-5)
    search.supernet.eval()
    with torch.no_grad():
        mixture = sum(F.cross_entropy(search.supernet(x), y).item() for x, y in valid)
    assert verdict.mixture == pytest.approx(mixture / len(valid), rel=1e-5)
    assert all(value in [c.value for c in verdict.candidates] for value in verdict.random)


def test_candidates_with_norms_are_compared_with_a_derived_network_without():
    torch.manual_seed(0)
    plain = nn.Linear(WIDTH, 8)
    model = nn.Sequential(Choice({"plain": plain, "norm": Sees(0)}, name="body"), nn.Linear(8, 2))
    search = Search(model)
    search.alphas["body"].data = torch.tensor([5.0, 0.0])
    judge = judge_of_loaders(search, search.result(), *loaders(), F.cross_entropy, None)
    verdict = compare(search, search.result(), judge, 2, 0, Limit(SHARE, 1e5))
    assert [own.decision["body"] for own in verdict.candidates] == ["plain", "norm"]
    assert verdict.notes == ()
    judge.of_run = True
    short = compare(search, search.result(), judge, 2, 0, Limit(SHARE, 1.0))
    assert short.sentence.startswith("No other architecture was compared")
    assert "--candidates 8 (in Python candidates=8)" in short.notes[0]
    assert "search.compare" not in short.notes[0]


@pytest.mark.slow
def test_a_planted_operation_is_decided_whatever_its_probability():
    search, result = searched()
    assert result.choices == {"body": "sees"}
    (choice,) = result.verdict.choices
    assert (choice.name, choice.chosen, choice.state) == ("body", "sees", "decided")
    assert choice.lead > choice.noise > 0
    assert result.undecided == []
    assert "Decided" in str(result)
    # The other way round: the alphas say something else than what is measured.
    search.alphas["body"].data = torch.tensor([2.0, 0.0, 0.0])
    verdict = search.compare(*loaders(), F.cross_entropy, measure=gradnas.accuracy)
    assert verdict.measure.name == "accuracy" and verdict.measure.higher_is_better
    assert verdict.choices[0].state == "contradicted"
    assert verdict.undecided == ["body"] and "Undecided" in verdict.sentence
    assert verdict.choices[0].alternative == "sees" and verdict.choices[0].lead < 0
    result = search.result()
    assert result.choices == {"body": "blind"}
    torch.testing.assert_close(
        result.derive(candidates=3)[0].linear[0].weight,
        search.supernet.net[0].operations["sees"].linear[0].weight,
    )


def test_equal_operations_are_undecided():
    torch.manual_seed(0)
    one = Sees(0)
    twin = Sees(0)
    twin.load_state_dict(one.state_dict())
    model = nn.Sequential(Choice({"one": one, "twin": twin}, name="body"), nn.Linear(8, 2))
    search = Search(model)
    search.alphas["body"].data = torch.tensor([5.0, 0.0])
    verdict = search.compare(*loaders(), F.cross_entropy)
    assert verdict.choices[0].probability > 0.99
    assert verdict.choices[0].state == "undecided" and verdict.undecided == ["body"]


def test_alphas_that_have_not_moved_decide_nothing():
    search = Search(net())
    for _ in range(3):
        x = torch.randn(8, WIDTH)
        search.step(lambda net, x=x: net(x).square().mean())
    with pytest.warns(UserWarning, match="have not moved"):
        verdict = search.compare(*loaders(), F.cross_entropy)
        result = search.result()
    assert not verdict.moved and verdict.undecided == ["body"]
    assert verdict.sentence.startswith("Nothing was decided")
    assert result.undecided == ["body"]


@pytest.mark.slow
def test_a_measure_of_which_less_is_better():
    search, _ = searched(candidates=0)

    def error(outputs, target):
        return (outputs.argmax(1) != target).double().mean()

    up = search.compare(*loaders(), F.cross_entropy, measure=gradnas.accuracy)
    down = search.compare(*loaders(), F.cross_entropy, measure=gradnas.lower(error))
    assert down.measure.name == "error" and not down.measure.higher_is_better
    assert down.derived == pytest.approx(1 - up.derived)
    assert down.choices[0].lead == pytest.approx(up.choices[0].lead)
    assert [c.gain for c in down.candidates] == pytest.approx([c.gain for c in up.candidates])


def test_dict_batches_and_methods_are_compared_by_a_loss_of_the_network():
    class Encodes(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = net()

        def forward(self, x):
            raise AssertionError

        def encode(self, x):
            return self.body(x)

    def loss(net, batch):
        return F.cross_entropy(net.method("encode", batch["x"]), batch["y"])

    train, valid = [[{"x": x, "y": y} for x, y in loader] for loader in loaders()]
    search = Search(Encodes(), alphas=gradnas.AlphaOptimizer(lr=0.01))
    result = search.fit(train, valid, loss, epochs=8, progress=False, candidates=8)
    assert result.choices == {"body": "sees"}
    assert result.verdict.groups >= FEWEST_GROUPS and result.undecided == []


# ---- nothing changes -----------------------------------------------------------------------------


def everything(search: Search, loaders) -> dict[str, object]:
    state = search.state_dict()
    return {
        **state["supernet"],
        "random": torch.get_rng_state(),
        "numpy": torch.from_numpy(np.random.get_state()[1].astype(np.int64)),
        "python": torch.tensor(random.getstate()[1]),
        **{str(k): loader.generator.get_state() for k, loader in enumerate(loaders)},
    }


@pytest.mark.parametrize(
    "relaxation", [gradnas.Softmax(), gradnas.BinaryGates(), gradnas.GumbelSoftmax()]
)
def test_nothing_of_the_search_changes(relaxation):
    def run(compared: bool) -> dict[str, object]:
        torch.manual_seed(0)
        train, valid = loaders()
        model = net()
        model.insert(1, nn.Dropout(0.2))
        search = Search(model, relaxation, epochs=2)
        for _ in range(2):
            for (x, y), (x_valid, y_valid) in search.pairs(train, valid):
                search.step(
                    lambda net, x=x, y=y: F.cross_entropy(net(x), y),
                    lambda net, x=x_valid, y=y_valid: F.cross_entropy(net(x), y),
                )
                if compared and search.steps in (3, 8):
                    before = everything(search, (train, valid))
                    modes = [module.training for module in search.supernet.modules()]
                    first = search.compare(train, valid, F.cross_entropy)
                    after = everything(search, (train, valid))
                    for name, tensor in before.items():
                        assert torch.equal(tensor, after[name]), name
                    assert modes == [module.training for module in search.supernet.modules()]
                    assert search.compare(train, valid, F.cross_entropy) == first
        return everything(search, (train, valid))

    with_verdict = run(True)
    without = run(False)
    for name, tensor in without.items():
        assert torch.equal(tensor, with_verdict[name]), name


def test_a_verdict_is_that_of_the_last_step():
    search, result = searched()
    assert search.result().verdict is result.verdict is not None
    x, y = next(iter(loaders()[0]))
    search.step(lambda net: F.cross_entropy(net(x), y))
    assert search.result().verdict is None
    with pytest.raises(ValueError, match="no candidates were measured since the last step"):
        search.result().derive(candidates=3)


def test_as_json_and_back():
    _, result = searched()
    verdict = result.verdict
    written = json.loads(json.dumps(verdict.to_json()))
    again = Verdict.from_json(written)
    assert again == verdict and again.sentence == verdict.sentence
    assert written["undecided"] == [] and written["sentence"] == verdict.sentence
    with pytest.raises(ValueError, match="no verdict"):
        Verdict.from_json({"sentence": "x"})


# ---- how much ------------------------------------------------------------------------------------


class Counted(Judge):
    """Counts the examples that it is asked to read."""

    yardstick = Yardstick()

    def __init__(self, sizes, extra=0):
        self.sizes = sizes
        self.extra = extra
        self.train_size = 32
        self.read = 0

    def mixture(self, batches):
        self.read += sum(self.sizes[:batches])
        return None

    def architecture(self, decision, batches):
        self.read += sum(self.sizes[:batches]) + self.extra
        generator = torch.Generator().manual_seed(abs(hash(decision)) % 1000)
        values = torch.rand(batches, generator=generator).tolist()
        return self.scores(values, self.sizes[:batches])


@pytest.mark.parametrize("allowed", [1e3, 5e3, 2e4, 1e5, 1e6])
def test_a_bounded_verdict_reads_no_more_than_it_may(allowed):
    model = nn.Sequential(
        *[Choice({name: nn.Linear(4, 4) for name in "abcde"}, name=f"c{k}") for k in range(6)]
    )
    search = Search(model)
    judge = Counted([64] * 20, extra=128)
    verdict = compare(search, search.result(), judge, 8, 4, Limit(0.1, allowed))
    assert judge.read <= max(allowed, 256 + 256 + 128)
    if allowed == 1e6:
        assert len(verdict.candidates) >= 8 and len(verdict.random) == 4
        assert not verdict.not_compared and not verdict.notes
    if allowed == 1e3:
        assert verdict.notes and verdict.not_compared


def test_fewer_examples_come_before_fewer_architectures():
    judge = Counted([64] * 20)
    assert planned(judge, 12, None) == (20, 12) or planned(judge, 12, None).batches == 20
    assert planned(judge, 12, 13 * 64 * 10).batches == 10
    tight = planned(judge, 12, 6 * 256.0)
    assert (tight.batches, tight.evaluations) == (4, 5)
    assert planned(judge, 12, 0.0).evaluations == 1


def test_of_a_short_search_some_architectures_are_measured_on_few_examples():
    judge = Counted([16] * 20, extra=32)
    assert planned(judge, 12, 500.0) == Plan(9, 2)
    assert planned(judge, 12, 200.0) == Plan(4, 1)  # four batches, of which noise can be told
    assert planned(judge, 12, 100.0) == Plan(2, 1)


def test_where_the_usual_share_compares_nothing_a_verdict_may_take_a_tenth():
    judge = Counted([256] * 4)
    usual = Limit(SHARE, 600.0)  # two architectures and the mixture take 768
    assert planned(judge, 12, usual.passes) == Plan(1, 1)
    plan, limit = planned_within(judge, 12, usual)
    assert plan == Plan(1, 2) and limit.share == ASKED
    assert limit.passes == pytest.approx(600.0 * ASKED / SHARE)
    assert planned_within(judge, 12, Limit(SHARE, 300.0)) == (Plan(1, 1), Limit(SHARE, 300.0))
    assert planned_within(judge, 12, Limit(ASKED, 600.0)) == (Plan(1, 1), Limit(ASKED, 600.0))
    assert planned_within(judge, 12, Limit(SHARE, 800.0)) == (Plan(1, 2), Limit(SHARE, 800.0))


def test_the_usual_verdict_takes_less_than_one_that_was_asked_for():
    model = nn.Sequential(
        *[Choice({name: nn.Linear(4, 4) for name in "abcde"}, name=f"c{k}") for k in range(6)]
    )
    search = Search(model)
    read = []
    for candidates in (None, 8):
        wanted, share = wanted_of(candidates)
        judge = Counted([64] * 20)
        compare(search, search.result(), judge, wanted, 4, Limit(share, share * 1e5))
        assert judge.read <= share * 1e5
        read.append(judge.read)
    assert read[0] < read[1]


def test_the_work_of_a_search_is_counted_in_passes():
    search, _ = searched(candidates=0)
    # 64 steps of weights on 32 examples and as many of the alphas, of three passes each.
    assert work_of(search.schedule, 32, 32) == 2 * 3 * 64 * 32


def test_without_candidates_there_is_no_verdict(capsys):
    search = Search(net())
    result = search.fit(*loaders(), F.cross_entropy, epochs=1, candidates=0)
    assert result.verdict is None and "verdict" not in capsys.readouterr().err
    assert "not measured" in str(result)
    for name, p in result.probabilities["body"].items():
        assert 0.3 < p < 0.37, name
    with pytest.raises(ValueError, match=r"call search\.compare"):
        result.derive(candidates=2)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"candidates": 0}, "at least 1 candidate"),
        ({"random": -1}, "0 random ones"),
    ],
)
def test_numbers_that_cannot_be(settings, words):
    search = Search(net())
    with pytest.raises(ValueError, match=words):
        search.compare(*loaders(), F.cross_entropy, **settings)


def test_loaders_that_cannot_be_read_again_are_refused():
    search = Search(net())
    with pytest.raises(ValueError, match="a generator has no length"):
        search.compare((batch for batch in loaders()[0]), loaders()[1], F.cross_entropy)


def test_more_candidates_than_were_measured_are_refused():
    search, _ = searched(candidates=0)
    search.compare(*loaders(), F.cross_entropy, candidates=2, random=0)
    with pytest.raises(ValueError, match="2 candidates were measured, not 3"):
        search.result().derive(candidates=3)
    assert isinstance(search.result().best_of(2), Choices)


def test_what_cannot_be_measured_is_said_and_loses_nothing():
    search, result = searched(candidates=0)

    def loss(outputs, target):
        raise RuntimeError("no evaluation")

    lines, verdict = verdict_after(search, result, *loaders(), loss, (8, 4))
    assert verdict is None and "no evaluation" in lines[0]


def a_verdict():
    judged = Judged("body", "a", 0.4, "b", 0.1, None, "undecided")
    candidates = (Candidate("body: a", 0.5), Candidate("body: b", 0.4, -0.1, None))
    return Verdict(Yardstick(), 64, 8, None, 0.5, candidates, 2, (0.3,), (judged,))


@pytest.mark.parametrize(
    "place, value",
    [
        ("examples", {}),
        ("likeliest", [3]),
        ("derived", "0.5"),
        ("choices", {"a": 1}),
        ("random", [None]),
        ("has_all", 1),
    ],
)
def test_values_of_other_types_are_no_verdict(place, value):
    whole = a_verdict().to_json()
    assert Verdict.from_json(whole) == Verdict.from_json(json.loads(json.dumps(whole)))
    with pytest.raises(ValueError, match=f"verdict.{place}"):
        Verdict.from_json({**whole, place: value})


@pytest.mark.parametrize("key", ["name", "probability", "lead", "state"])
def test_a_damaged_choice_is_no_verdict(key):
    whole = a_verdict().to_json()
    whole["choices"][0][key] = {"x": 1}
    with pytest.raises(ValueError, match=rf"verdict.choices\[0\].{key}"):
        Verdict.from_json(whole)
