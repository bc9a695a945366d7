"""The health of a search: its signs, its sentences, its guard, and that nothing else changes."""

from __future__ import annotations

import itertools
import json
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.data import DataLoader, TensorDataset

import gradnas
from gradnas.architectures.choices import Choices
from gradnas.architectures.dense_cell import DenseCell
from gradnas.gradients.base import leaves
from gradnas.randomness import generator_for
from gradnas.search.collapse import Collapse, collapse
from gradnas.search.gap import far_behind
from gradnas.search.health import Health
from gradnas.search.sharpness import Eigenvalue, growth
from gradnas.search.signals import (
    DRAWS,
    NUM_RANDOM,
    UNLIKELY,
    Chance,
    decided_rows,
    relative_entropy,
    weightless,
)
from gradnas.search.verdict import Yardstick
from gradnas.tasks.sentences import health_lines
from tests.cases import TwoChoices, loss_on


def batch(number: int = 12) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(number, 3, 6, 6, generator=generator)
    return x, torch.randint(0, 5, (number,), generator=generator)


def dense_hessian(search: gradnas.Search, loss) -> Tensor:
    """By differentiating twice, entry by entry."""
    closure = search.passes.closure(loss, search.passes.noise(1))
    names = list(search.alphas)
    sizes = [search.alphas[name].numel() for name in names]

    def of_vector(vector_n: Tensor) -> Tensor:
        parts = dict(zip(names, vector_n.split(sizes), strict=True))
        tables = {name: parts[name].view(search.alphas[name].shape) for name in names}
        return closure(leaves(search.params, requires_grad=False), tables)

    start = torch.cat([search.alphas[name].detach().reshape(-1) for name in names])
    return torch.autograd.functional.hessian(of_vector, start)


# ---- the eigenvalue ------------------------------------------------------------------------------


@pytest.mark.parametrize("relaxation", [gradnas.Softmax(), gradnas.Sigmoid()])
def test_both_ends_of_the_spectrum_are_those_of_the_dense_hessian(relaxation):
    torch.manual_seed(0)
    search = gradnas.Search(TwoChoices(dropout=0.3).double(), relaxation, seed=3)
    with torch.no_grad():
        for alpha in search.alphas.values():
            alpha.add_(torch.randn_like(alpha))
    loss = loss_on((batch()[0].double(), batch()[1]))
    torch.manual_seed(5)
    values = torch.linalg.eigvalsh(dense_hessian(search, loss))
    torch.manual_seed(5)  # the masks of dropout
    found = search.curvature(loss)
    assert found.largest == pytest.approx(float(values[-1]), rel=1e-8)
    assert found.smallest == pytest.approx(float(values[0]), rel=1e-8)
    assert abs(found.dominant) == pytest.approx(float(values.abs().max()), rel=1e-8)
    assert found.residual < 1e-8 and found.products <= 5


def test_power_iteration_on_the_fused_cells_agrees_with_the_dense_hessian():
    torch.manual_seed(0)
    space = gradnas.ConvCell(
        channels=2, cells=2, nodes=1, operations=("skip_connect", "sep_conv_3x3")
    )
    search = gradnas.Search(space.supernet(num_classes=5), seed=0)
    x, y = batch()
    loss = loss_on((x[:, :, :4, :4].contiguous(memory_format=torch.channels_last), y))
    largest = torch.linalg.eigvalsh(dense_hessian(search, loss).double())[-1]
    assert search.curvature(loss).largest == pytest.approx(float(largest), rel=1e-4)


def test_it_changes_nothing():
    class Counts(TwoChoices):
        calls = 0

        def forward(self, x_BCHW: Tensor) -> Tensor:
            self.calls += 1
            random.random()
            np.random.rand()
            return super().forward(x_BCHW)

    torch.manual_seed(0)
    net = Counts(dropout=0.5)
    search = gradnas.Search(net, seed=0)
    search.health.watch("warn")
    search.schedule.steps = 100  # as many as pay for it
    before = {key: value.clone() for key, value in net.state_dict().items()}
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    assert search.health.before_alphas(loss_on(batch()))
    assert search.health.sharpness.measured is not None
    for key, value in net.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.random.get_state()[1].tolist() == states[2]


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        return 2 * grad


class WithOnce(TwoChoices):
    def forward(self, x_BCHW: Tensor) -> Tensor:
        return Once.apply(super().forward(x_BCHW))


@pytest.mark.parametrize(
    ("net", "relaxation", "words"),
    [
        (WithOnce, gradnas.Softmax(), "Once in the network or the loss is marked once_differ"),
        (TwoChoices, gradnas.BinaryGates(), "BinaryGates samples operations"),
        (TwoChoices, gradnas.BinaryGates(mode="full"), "BinaryGates samples operations"),
        (TwoChoices, gradnas.GumbelSoftmax(), "GumbelSoftmax samples operations"),
    ],
)
def test_what_has_no_exact_hessian_is_named_and_the_search_goes_on(net, relaxation, words):
    search = gradnas.Search(net(), relaxation, epochs=4, seed=0)
    with pytest.raises(ValueError, match=words):
        search.curvature(loss_on(batch()))
    search.health.watch("warn")
    search.schedule.steps = 100
    search.step(loss_on(batch()), loss_on(batch()))
    assert words in search.health.results()["no_hessian"]


def test_weights_of_sixteen_bits_have_too_few_digits():
    search = gradnas.Search(TwoChoices().bfloat16(), seed=0)
    x, y = batch()
    with pytest.raises(ValueError, match=r"'stem.weight' is bfloat16"):
        search.curvature(loss_on((x.bfloat16(), y)))
    with pytest.raises(ValueError, match="products must be at least 1"):
        search.curvature(loss_on(batch()), products=0)


def test_a_measurement_takes_at_most_a_twentieth_of_the_steps_since_the_last():
    search = gradnas.Search(TwoChoices(), seed=0)
    sharpness = search.health.sharpness
    loss = loss_on(batch())
    search.schedule.steps = 59  # a graph and two products are three steps, which need sixty
    assert not sharpness.measure(loss)
    search.schedule.steps = 88  # a further one takes 1.4 steps
    assert sharpness.measure(loss)
    assert sharpness.measured is not None and sharpness.measured.products == 3
    assert not sharpness.measure(loss)  # once an epoch
    sharpness.finish_epoch()
    search.schedule.steps = 147
    assert not sharpness.measure(loss)


# ---- the rule ------------------------------------------------------------------------------------


def test_the_rule_compares_averages_five_epochs_apart():
    flat = [Eigenvalue(epochs, 1.0) for epochs in range(20)]
    assert growth(flat, waiting=0) is None
    # From epoch 12 on three times as large: the average of 5 passes 4/3 where one of them is.
    risen = [Eigenvalue(epochs, 1.0 if epochs < 12 else 3.0) for epochs in range(13)]
    found = growth(risen, waiting=0)
    assert found is not None
    assert found == (5, 1.0, pytest.approx(1.4))  # of epochs 8 to 12, and of 3 to 7
    assert growth(risen, waiting=6) is None
    assert growth(risen[:-1], waiting=0) is None


@pytest.mark.parametrize("last", [0.0, -1.0])
def test_an_eigenvalue_that_falls_to_nothing_has_not_grown(last):
    """Where operations do not compete all curvatures may be negative."""
    fallen = [Eigenvalue(epochs, 1.0 if epochs < 8 else last) for epochs in range(20)]
    assert all(growth(fallen[:number], waiting=0) is None for number in range(21))
    risen = [Eigenvalue(epochs, -1.0 if epochs < 8 else 1.0) for epochs in range(20)]
    assert growth(risen, waiting=0) is None  # of a negative one there is no ratio


def test_the_rule_takes_no_decision_that_nobody_took_note_of():
    """Of a loop of one's own between two calls of fit, nor after a selection began to decide."""
    search = gradnas.Search(TwoChoices(), seed=0, epochs=30)
    sharpness = search.health.sharpness
    sharpness.series = [Eigenvalue(epochs, 1.0) for epochs in range(10)]
    search.schedule.epoch = 13
    search.health.watch("stop")
    sharpness.series += [Eigenvalue(epochs, 50.0) for epochs in range(10, 17)]
    search.schedule.epoch = 17
    assert growth(sharpness.series, waiting=0) is not None
    assert search.health.growth() is None and not search.health.act()
    sharpness.series += [Eigenvalue(epochs, 900.0) for epochs in range(17, 25)]
    assert search.health.growth() is not None and search.health.growth().epochs >= 13
    search.supernet.fixed = {"first": {0: 1}}
    assert search.health.growth() is None


def test_the_rule_takes_series_with_gaps():
    """Where an epoch is too short to pay for a measurement there is one every few epochs."""
    series = [Eigenvalue(epochs, 1.0 + epochs) for epochs in range(0, 40, 4)]
    found = growth(series, waiting=0)
    assert found is not None
    assert found.epochs == 20 and found.before == pytest.approx(21.0)
    assert found.now == pytest.approx(29.0)


# ---- other signs ---------------------------------------------------------------------------------


def test_operations_without_weights_are_counted_where_choices_differ_in_that():
    supernet = gradnas.Search(TwoChoices(), seed=0).supernet
    assert list(supernet.weightless()) == ["first"]  # both operations of the second have weights
    assert supernet.weightless()["first"].tolist() == [False, False, True]
    chosen = Choices({"first": "skip", "second": "pointwise"})
    found = weightless(supernet, chosen, supernet.weightless())
    assert found == (1, 1)
    cells = gradnas.ConvCell(channels=2, cells=3, nodes=1).supernet()
    free = cells.weightless()
    names = dict(zip(cells.shape.names, free["normal"][0].tolist(), strict=True))
    assert names["skip_connect"] and names["max_pool_3x3"] and names["none"]
    assert not names["sep_conv_3x3"]
    columns = cells.shape.names.index("skip_connect")
    assert not free["reduce"][0, columns]  # it halves the maps by a convolution


def test_the_cells_of_nas_bench_201_have_two_operations_with_weights():
    supernet = gradnas.NasBench201(channels=2, cells=1).supernet()
    with_weights = {"nor_conv_1x1", "nor_conv_3x3"}
    (free_EO,) = supernet.weightless().values()
    (names,) = supernet.operation_names().values()
    assert free_EO.shape == (6, 5)
    for free_O in free_EO.tolist():
        assert [name for name, free in zip(names, free_O, strict=True) if not free] == [
            name for name in names if name in with_weights
        ]
    skips = supernet.decide().parse("|skip_connect~0|+|skip_connect~0|skip_connect~1|"
                                    "+|skip_connect~0|skip_connect~1|skip_connect~2|")  # fmt: skip
    found = weightless(supernet, skips, supernet.weightless())
    assert found == (6, 6)
    chance = Chance(supernet, supernet.weightless())
    assert chance.is_unlikely(found.share)
    # Of all cells 0.6^6 = 4.7% and 23%: whichever are drawn, the first is few and the second not.
    for seed in range(20):
        generator = generator_for(seed, 1)
        shares = [
            weightless(supernet, supernet.random_decision(generator), supernet.weightless()).number
            for _ in range(NUM_RANDOM)
        ]
        assert shares.count(6) <= UNLIKELY * NUM_RANDOM < sum(own >= 5 for own in shares)


class Chain(nn.Module):
    """Choices in a row, each with one operation in three that has no weights."""

    def __init__(self, number: int = 6) -> None:
        super().__init__()
        parts = []
        for place in range(number):
            operations = {"a": nn.Linear(4, 4), "b": nn.Linear(4, 4), "skip": nn.Identity()}
            parts.append(gradnas.Choice(operations, name=f"c{place}"))
        self.parts = nn.Sequential(*parts)

    def forward(self, x_BF: Tensor) -> Tensor:
        return self.parts(x_BF)


def test_a_collapse_is_what_chance_hardly_gives():
    supernet = gradnas.Search(Chain(), seed=0).supernet
    chance = Chance(supernet, supernet.weightless())
    assert chance.is_unlikely(1.0) and chance.is_unlikely(5 / 6)
    assert not chance.is_unlikely(0.5)
    # As all 200 say, although a few are drawn where these are enough.
    generator = generator_for(0, DRAWS)
    shares = []
    for _ in range(NUM_RANDOM):
        own = weightless(supernet, supernet.random_decision(generator), supernet.weightless())
        shares.append(own.share)
    for asked in range(7):
        few = Chance(supernet, supernet.weightless())
        as_many = sum(share >= asked / 6 for share in shares)
        assert few.is_unlikely(asked / 6) == (as_many <= 0.08 * NUM_RANDOM)
    decision = supernet.random_decision(generator)
    assert supernet.columns_of(decision) == supernet.one_hot_draw(decision).active
    supernet = gradnas.Search(Chain(1), seed=0).supernet
    single = Chance(supernet, supernet.weightless())
    assert not single.is_unlikely(1.0)  # a third of all


def test_a_collapse_is_said_and_not_within_a_cost():
    search = gradnas.Search(Chain(), seed=0, epochs=8)
    search.health.watch("warn")
    skips = Choices({f"c{place}": "skip" for place in range(6)})
    search.health.finish_epoch(skips)
    assert search.health.news is None  # the alphas have not moved: this is chance
    with torch.no_grad():
        for alpha in search.alphas.values():
            alpha[2] += 2.0
    search.health.finish_epoch(skips)
    assert search.health.news is not None
    assert "of 6 choices between operations with and without weights, 6 go to" in search.health.news
    search.health.finish_epoch(skips)
    assert search.health.news is None and search.health.trouble is not None
    cost = gradnas.ExpectedCost(budget_macs=50)
    dear = gradnas.Search(Chain(), seed=0, epochs=8, cost=cost, example=torch.zeros(1, 4))
    dear.health.watch("warn")
    dear.health.finish_epoch(skips)
    assert dear.health.trouble is None


def test_a_collapse_is_a_decision_without_weights_that_stays():
    few = [False, True, False, *[True] * 6]
    assert collapse(few, 0, 0) == Collapse(since=4, epochs=3)
    assert collapse(few, 10, 0) == Collapse(since=14, epochs=13)
    assert collapse(few[:-1], 0, 0) is None  # not for long enough
    assert collapse(few[:-1], 0, 0, longer_than=0) == Collapse(since=4, epochs=3)
    assert collapse([*few, False], 0, 0, longer_than=0) is None
    assert collapse([True] * 9, 0, 0) is None  # no decision of before
    assert collapse(few, 0, 3) is None  # the alphas waited until then


@pytest.mark.parametrize("guard", ["warn", "stop"])
def test_the_guard_takes_the_decision_before_a_collapse(guard):
    search = gradnas.Search(Chain(), seed=0, epochs=12)
    search.health.watch(guard)
    kept = []
    said = []
    for epoch in range(11):
        with torch.no_grad():
            for alpha in search.alphas.values():
                alpha[2 if epoch >= 2 else 0] += 2.0
        kept.append({name: alpha.detach().clone() for name, alpha in search.alphas.items()})
        search.finish_epoch()
        search.health.finish_epoch(search.result().decision)
        said.append(search.health.news or "")
        if epoch == 5:  # a state holds what the rule needs
            other = gradnas.Search(Chain(), seed=0, epochs=12)
            other.health.watch(guard)
            other.load_state_dict(search.state_dict())
            search = other
        if search.health.act():
            break
    # Of equal alphas (after epoch 4) the first is taken; the skips are strongest from epoch 5 on.
    assert "the search has collapsed: since epoch 5" in said[9]
    assert "take the decision after epoch 4" in said[9]
    if guard == "warn":
        assert search.health.stopped is None and len(kept) == 11
        return
    assert dict(vars(search.health.stopped)) == {"after": 10, "decision": 4}
    assert "after epoch 10 of 12, as the search had collapsed" in search.health.trouble
    for name, alpha in search.alphas.items():
        assert torch.equal(alpha, kept[3][name])


def test_a_gap_is_said_beside_what_else_is_wrong_by_measure_and_direction():
    pixels = Yardstick("pixels_off", higher_is_better=False)
    sentence = far_behind(pixels, 20.0, 1.93, 14.33)
    assert sentence is not None
    assert sentence.startswith("the derived network (pixels_off 14.33) is far behind the mixture")
    assert far_behind(pixels, 20.0, 14.33, 1.93) is None  # it is better
    assert far_behind(pixels, 0.5, 0.01, 0.03) is None  # nearly all that was learnt is kept
    share = Yardstick("accuracy", True, 100.0, "%")
    assert far_behind(share, 0.1, 0.88, 0.15) is not None
    assert far_behind(share, 0.1, 0.88, 0.85) is None
    likelihood = Yardstick("loglik", higher_is_better=True)
    assert far_behind(likelihood, -9.0, -2.0, -12.0) is not None
    assert far_behind(likelihood, -9.0, -2.0, -4.0) is None

    search = gradnas.Search(Chain(), seed=0, epochs=1)
    search.health.watch("warn")
    search.schedule.epoch = 1
    search.health.gap.measure(pixels, 1.93, 14.33)
    record = search.health.finish_epoch(search.result().decision)
    assert record["gap"] == search.health.results()["gap"] == far_behind(pixels, None, 1.93, 14.33)
    again = gradnas.Search(Chain(), seed=0, epochs=1).health
    again.load_state_dict(search.health.state_dict(), {})
    assert (again.gap.sentence, again.gap.first) == (record["gap"], 1.93)
    assert health_lines({"health": "a", "undecided": "a", "gap": "far"}) == ["health: far"]


def tables(values: Tensor) -> list[dict[str, Tensor]]:
    """A history of one table for each choice, from the alphas of all epochs, (N, R, O)."""
    return [{f"c{row}": own[row] for row in range(own.shape[0])} for own in values]


def test_alphas_that_go_one_way_decide_and_those_that_wander_do_not():
    softmax = gradnas.Softmax()
    generator = torch.Generator().manual_seed(0)
    noise = 0.02 * torch.randn(16, 8, 3, generator=generator).cumsum(0)
    wander = decided_rows(softmax, tables(noise))
    assert wander is not None and wander.of == 8 and wander.rows <= wander.chance
    drift = noise.clone()
    drift[:, :, 1] += 0.03 * torch.arange(16)[:, None]
    led = decided_rows(softmax, tables(drift))
    assert led is not None and led.rows == 8
    assert decided_rows(softmax, tables(drift[:4])) is None  # too few epochs
    still = torch.cat([drift[:1].expand(20, -1, -1), drift[:4]])  # and warm-up does not count
    assert decided_rows(softmax, tables(still)) is None


@pytest.mark.slow
def test_few_random_walks_are_taken_for_decisions():
    wrong = 0
    for seed in range(60):
        generator = torch.Generator().manual_seed(seed)
        walk = torch.randn(20, 8, 3, generator=generator).cumsum(0)
        found = decided_rows(gradnas.Softmax(), tables(0.01 * walk))
        assert found is not None
        wrong += found.rows > found.chance
    assert wrong <= 6  # of 60, where 3 are expected at the most by its bound


def test_entropy_is_a_share_of_that_of_equal_operations():
    equal = {"a": torch.zeros(3), "b": torch.zeros(2, 5), "one": torch.zeros(1)}
    assert relative_entropy(gradnas.Softmax(), equal) == pytest.approx(1.0)
    assert relative_entropy(gradnas.Sigmoid(), equal) == pytest.approx(1.0)
    sure = {"a": torch.tensor([50.0, 0.0])}
    assert relative_entropy(gradnas.Softmax(), sure) == pytest.approx(0.0, abs=1e-12)
    assert relative_entropy(gradnas.Softmax(), {"one": torch.zeros(1)}) is None


# ---- in a loop -----------------------------------------------------------------------------------


def loaders(number: int = 240) -> tuple[DataLoader, DataLoader]:
    data = TensorDataset(*batch(number))
    return DataLoader(data, 4), DataLoader(data, 4, shuffle=True)


def fitted(guard: str, epochs: int = 2, **options):
    torch.manual_seed(0)
    search = gradnas.Search(TwoChoices(dropout=0.2), seed=0)
    seen: list[dict] = []
    result = search.fit(
        *loaders(),
        F.cross_entropy,
        epochs=epochs,
        progress=False,
        candidates=0,
        guard=guard,
        on_epoch=lambda epoch: seen.append(dict(epoch.metrics)),
        **options,
    )
    return search, result, seen


def test_fit_tells_it_and_nothing_else_changes():
    search, _, seen = fitted("warn")
    other, _, without = fitted("off")
    for name, alpha in search.alphas.items():
        assert torch.equal(alpha, other.alphas[name])
    for name, p in search.params.items():
        assert torch.equal(p, other.params[name])
    assert search.health.sharpness._paid == 100 and "hessian_eigenvalue" not in seen[0]
    for with_, bare in zip(seen, without, strict=True):
        for key in ("hessian_eigenvalue", "hessian_residual", "health"):
            assert key not in bare
            with_.pop(key, None)
        assert with_ == bare
    assert seen[0]["weightless_share"] in (0.0, 1.0)
    with pytest.raises(ValueError, match="guard must be 'warn', 'stop' or 'off'"):
        fitted("on")


def test_a_search_that_is_resumed_measures_the_same(tmp_path):
    _, _, whole = fitted("warn", out=tmp_path / "whole")

    class Stop(Exception):
        pass

    def stop(epoch) -> None:
        if epoch.number == 1:
            raise Stop

    torch.manual_seed(0)
    first = gradnas.Search(TwoChoices(dropout=0.2), seed=0)
    options = {"epochs": 2, "progress": False, "candidates": 0, "out": tmp_path / "part"}
    with pytest.raises(Stop):
        first.fit(*loaders(), F.cross_entropy, on_epoch=stop, **options)
    second = gradnas.Search(TwoChoices(dropout=0.2), seed=0)
    second.fit(*loaders(), F.cross_entropy, resume=True, **options)
    texts = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("whole", "part")]
    assert texts[0] == texts[1] and len(whole) == 2


def growing(health: Health) -> None:
    """From now on its eigenvalues are those of a search that should be over after epoch 5."""

    def measure(loss) -> bool:
        epochs = health.passes.schedule.epoch
        values = health.sharpness.series
        if len(values) <= epochs:
            values.append(Eigenvalue(epochs, 1.0 if epochs < 12 else 3.0))
        return False

    health.sharpness.measure = measure  # type: ignore[method-assign]


def with_growing_eigenvalues() -> tuple[gradnas.Search, DataLoader]:
    """A search of that kind, and its data in one batch."""
    torch.manual_seed(0)
    search = gradnas.Search(TwoChoices(), seed=0)
    growing(search.health)
    return search, DataLoader(TensorDataset(*batch(8)), 8)


@pytest.mark.parametrize("guard", ["warn", "stop"])
def test_the_guard_takes_the_last_decision_that_was_good(guard, tmp_path):
    search, data = with_growing_eigenvalues()
    seen = []
    kept = []

    def note(epoch) -> None:
        seen.append(epoch)
        kept.append({name: alpha.detach().clone() for name, alpha in search.alphas.items()})

    search.fit(
        data, data, F.cross_entropy, epochs=16, progress=False, on_epoch=note, guard=guard,
        out=tmp_path / "run", candidates=2,
    )  # fmt: skip
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    if guard == "warn":
        assert len(seen) == 16 and search.health.stopped is None
        assert "take the decision after epoch" in results["health"]
        return
    assert len(seen) == 13
    assert results["stopped"] == {"after": 13, "decision": 5}
    assert "the guard ended the search after epoch 13 of 16" in results["health"]
    for name, alpha in search.alphas.items():
        assert torch.equal(alpha, kept[4][name])
    page = gradnas.cli.main(["report", str(tmp_path / "run")])
    assert page == 0
    text = (tmp_path / "run" / "report.html").read_text()
    assert "The guard ended the search" in text and "were lost" not in text


@pytest.mark.parametrize("out", [False, True])
def test_the_guard_takes_an_earlier_decision_than_the_last(out, tmp_path):
    """Where only the end of the last epoch shows that it should."""
    search, data = with_growing_eigenvalues()
    texts = []
    folder = {"out": tmp_path / "run"} if out else {}

    def note(epoch) -> None:
        texts.append(epoch.metrics["genotype"])
        if search.health.stopped is not None:
            return
        with torch.no_grad():  # the decision changes from epoch to epoch
            for alpha in search.alphas.values():
                alpha.copy_(alpha.roll(1, -1) * 1.5)

    result = search.fit(
        data, data, F.cross_entropy, epochs=13, progress=False, candidates=2, guard="stop",
        on_epoch=note, **folder,
    )  # fmt: skip
    assert len(texts) == 13 and dict(vars(search.health.stopped)) == {"after": 13, "decision": 5}
    assert "the guard takes an earlier decision than the last, as" in search.health.trouble
    assert texts[4] != texts[-1] and result.verdict is not None
    assert result.decision.to_text() == texts[4]
    assert result.verdict.candidates[0].text == texts[4]
    if out:
        rows = gradnas.runs.Run(tmp_path / "run").records("metrics.jsonl")
        assert "derived_valid_loss" not in rows[-1]  # it would be that of another decision


def test_a_supernet_whose_second_derivatives_are_slow_pays_more_steps():
    space = gradnas.RecurrentCell(hidden=4, embedding=4, nodes=1)
    search = gradnas.Search(space.supernet(vocabulary=5), seed=0)
    assert search.supernet.steps_of_product == 6
    search.schedule.steps = 359
    assert search.health.sharpness._due() == 0
    search.schedule.steps = 360
    assert search.health.sharpness._due() == 2


# ---- a cell that lets nothing through ------------------------------------------------------------


def test_cells_that_let_nothing_through_are_those_that_the_benchmark_could_not_train():
    supernet = gradnas.NasBench201(channels=2, cells=1).supernet()
    names = supernet.operation_names()["cell"]
    blind = 0
    for operations in itertools.product(("none", "skip_connect"), repeat=6):
        if supernet.is_blind(DenseCell.of(operations)):
            blind += (len(names) - 1) ** operations.count("skip_connect")
    assert (
        blind == 341
    )  # cells whose accuracy in the benchmark is 10.0% (facts of the paper's data)


@pytest.mark.parametrize("guard", ["off", "warn"])
def test_a_decision_that_lets_nothing_through_is_named(guard):
    search = gradnas.Search(gradnas.NasBench201(channels=2, cells=1).supernet(), seed=0, epochs=8)
    search.health.watch(guard)
    text = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|none~0|none~1|none~2|"
    search.finish_epoch()
    record = search.health.finish_epoch(DenseCell.parse(text))
    assert ("health" in record) == (guard == "warn")
    assert "lets nothing through" in search.health.results()["health"]
    again = gradnas.Search(gradnas.NasBench201(channels=2, cells=1).supernet(), seed=0, epochs=8)
    again.load_state_dict(search.state_dict())
    assert again.health.results()["health"] == search.health.results()["health"]
    search.finish_epoch()
    search.health.finish_epoch(DenseCell.parse(text.replace("none~2", "skip_connect~2")))
    assert "health" not in search.health.results()


def test_the_guard_goes_back_past_a_decision_that_lets_nothing_through():
    """Where the eigenvalues point at one."""
    search, data = with_growing_eigenvalues()
    search.supernet.is_blind = lambda decision: search.epoch in (4, 5)
    search.fit(data, data, F.cross_entropy, epochs=16, progress=False, guard="stop", candidates=0)
    assert dict(vars(search.health.stopped)) == {"after": 13, "decision": 3}
