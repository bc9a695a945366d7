"""The best of several candidates: against plain measurements, and in whole searches."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import gradnas
from gradnas import CandidateSelection, PartialChannels, ScoreSelection, Search, Strongest
from gradnas.data import DataConfig
from gradnas.families.recipes import search_recipe
from gradnas.programs.searching import run_search, start_search
from gradnas.reports.verdict import verdict_section
from gradnas.search.chosen import check_alone
from gradnas.search.proxies import Swap
from gradnas.tasks import kind_of
from gradnas.tasks.images import IMAGES
from gradnas.tasks.images.search import example_input
from gradnas.tasks.text.judging import TextJudge
from gradnas.tasks.text.settings import TextSearchConfig

CHOICES = {"a": 3.0, "b": 1.0, "c": -2.0}


class Sums(nn.Module):
    """Two choices of a constant each; the nearer their sum is to the target, the better."""

    def __init__(self) -> None:
        super().__init__()
        for name in ("one", "two"):
            setattr(self, name, gradnas.Choice({k: Plus(v) for k, v in CHOICES.items()}, name=name))
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x_B1: Tensor) -> Tensor:
        return self.two(self.one(x_B1)) * self.scale


class Plus(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        return x + self.value


def loader(target: float, number: int = 40, seed: int = 0) -> DataLoader:
    x_B1 = torch.linspace(-1.0, 1.0, number).unsqueeze(1)
    noise_B1 = 0.01 * torch.randn(number, 1, generator=torch.Generator().manual_seed(seed))
    return DataLoader(TensorDataset(x_B1, x_B1 + target + noise_B1), 10)


def loss_of(batch):
    return lambda net: F.mse_loss(net(batch[0]), batch[1])


def still(**settings) -> Search:
    """A search whose weights do not learn, so that what is best is known."""

    def optimizer(params):
        return torch.optim.SGD(params, lr=0.0)

    return Search(Sums(), weights=optimizer, seed=0, **settings)


@pytest.mark.parametrize(
    ("target", "pair"), [(2.0, {"b"}), (-4.0, {"c"}), (4.0, {"a", "b"}), (-1.0, {"b", "c"})]
)
def test_the_best_of_all_candidates_is_taken(target, pair):
    search = still(selection=CandidateSelection(likeliest=2, random=7))
    data = loader(target)
    result = search.fit(data, data, F.mse_loss, epochs=1, progress=False)
    assert set(result.choices.values()) == pair
    best = search.chosen
    # Its loss is that of the noise, whichever of the nine it was found among.
    assert best.likeliest + best.random == 9 and best.value == pytest.approx(1e-4, rel=0.5)
    # With two different operations the other order is as good.
    assert best.clear == (8 if len(pair) == 1 else 7) and best.undecided is None
    assert result.moved  # it was decided, by measurement


def test_without_random_candidates_the_alphas_say_which_are_measured():
    selection = CandidateSelection(likeliest=2, random=0)
    search = still(selection=selection, epochs=1)
    with torch.no_grad():
        search.alphas["one"].copy_(torch.tensor([0.0, 2.0, 1.0]))
        search.alphas["two"].copy_(torch.tensor([5.0, 0.0, 0.0]))
    data = loader(1.0)  # c and a: the second by the alphas
    best = search.choose(data, data, F.mse_loss)
    assert search.result().choices == {"one": "c", "two": "a"}
    assert (best.likeliest, best.random, best.random_mean) == (2, 0, None)
    assert best.first == pytest.approx(9.0, rel=0.01)
    assert "1 of the 1 others are worse" in best.sentence
    # As measured without the search: (sum - target)^2.
    other = search.compare(data, data, F.mse_loss, candidates=2, random=0)
    assert other.derived == pytest.approx(best.value, rel=1e-6)
    assert search.choose(data, data, F.mse_loss).first == best.first  # once more, the same


@pytest.mark.parametrize(
    ("selection", "states"),
    [
        (Strongest(), {"decided"}),
        (CandidateSelection(likeliest=2, random=7), {"not confirmed"}),
        (gradnas.PerturbationSelection(interval=1), {"not confirmed"}),
    ],
)
def test_what_was_taken_by_held_out_examples_is_not_confirmed_by_them(selection, states):
    search = still(selection=selection)
    with torch.no_grad():  # the alphas would take what is best
        for alpha in search.alphas.values():
            alpha.copy_(torch.tensor([0.0, 2.0, 0.0]))
    data = loader(2.0)
    result = search.fit(data, data, F.mse_loss, epochs=4, progress=False, candidates=0)
    others = loader(2.0, seed=1)
    verdict = search.compare(data, others, F.mse_loss, candidates=9, random=0)
    assert verdict.held_out and verdict.taken == ("decided" not in states)
    assert set(result.choices.values()) == {"b"}
    assert {choice.state for choice in verdict.choices} == states and not verdict.undecided
    said = verdict.sentence
    assert said.startswith(
        "Decided" if "decided" in states else "Not confirmed: what was chosen in"
    )


def test_what_the_alphas_took_can_be_confirmed_whatever_was_asked_for():
    search = still(selection=CandidateSelection(likeliest=2, random=7), epochs=1)
    with torch.no_grad():
        for alpha in search.alphas.values():
            alpha.copy_(torch.tensor([0.0, 2.0, 0.0]))
    data = loader(2.0)
    others = loader(2.0, seed=1)
    verdict = search.compare(data, others, F.mse_loss, candidates=9, random=0)  # nothing was chosen
    assert {choice.state for choice in verdict.choices} == {"decided"}
    # On what the weights have learned from (which these have not) it cannot be.
    verdict = search.compare(data, data, F.mse_loss, candidates=9, random=0)
    assert {choice.state for choice in verdict.choices} == {"not confirmed"}
    assert "on examples that the weights have learned from, which cannot" in verdict.sentence
    assert "on 40 training examples" in verdict.lines()[0]


def test_what_a_measure_is_of_is_said_in_the_words_of_its_data():
    judge = TextJudge.__new__(TextJudge)
    assert judge.where == "held-out tokens with the weights of the search"


def test_candidates_that_do_not_differ_decide_nothing():
    class Same(Sums):
        def forward(self, x_B1: Tensor) -> Tensor:
            return (0.0 * self.two(self.one(x_B1)) + x_B1) * self.scale

    search = Search(Same(), seed=0, selection=CandidateSelection(likeliest=4, random=0))
    data = loader(0.0)
    best = search.choose(data, data, F.mse_loss)
    assert best.clear == 0 and best.undecided.startswith("nothing was decided: by loss on 40")


def test_a_loop_of_ones_own_is_told_to_choose_until_the_next_step():
    search = still(selection=CandidateSelection(likeliest=2, random=2), epochs=1)
    data = loader(-4.0)
    for train, valid in search.pairs(data, data):
        search.step(loss_of(train), loss_of(valid))
    with pytest.warns(UserWarning, match=r"call search\.choose"):
        search.result()
    search.choose(data, data, F.mse_loss)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert search.result().decision == search.chosen.decision


def test_a_measure_that_nobody_has_told_is_not_taken_for_the_loss():
    search = Search(Sums(), selection=CandidateSelection(likeliest=2, criterion="measure"))
    with pytest.raises(ValueError, match="needs to know what the data are measured by"):
        search.fit(loader(2.0), loader(2.0, seed=1), F.mse_loss, epochs=1, progress=False)
    assert search.steps == 0
    with pytest.raises(ValueError, match="needs to know what the data are measured by"):
        search.choose(loader(2.0), loader(2.0, seed=1), F.mse_loss)


def test_what_cannot_be_measured_is_refused(monkeypatch):
    data = loader(0.0)
    with pytest.raises(ValueError, match="Strongest measures no candidates"):
        still(selection=Strongest()).choose(data, data, F.mse_loss)
    with pytest.raises(ValueError, match="choose reads its loaders from their beginning"):
        still(selection=CandidateSelection()).choose(iter(data), data, F.mse_loss)
    with pytest.raises(ValueError, match="CandidateSelection reads its loaders"):
        still(selection=CandidateSelection()).fit(data, iter(data), F.mse_loss, 1)
    monkeypatch.setattr(gradnas.distributed, "world", lambda: 2)
    with pytest.raises(ValueError, match="would take another decision in each"):
        check_alone(CandidateSelection())
    check_alone(Strongest())
    monkeypatch.undo()
    net = gradnas.NasBench201(channels=4, cells=1).supernet()
    with pytest.raises(ValueError, match="weights of PartialChannels do not fit any"):
        Search(net, PartialChannels(2), selection=CandidateSelection())
    with pytest.raises(ValueError, match="at least two candidates"):
        CandidateSelection(likeliest=1, random=0)
    with pytest.raises(ValueError, match="likeliest must be a whole number"):
        CandidateSelection(likeliest=1.5)
    with pytest.raises(ValueError, match="criterion must be"):
        CandidateSelection(criterion="accuracy")


class Maps(nn.Module):
    """A choice of maps with many patterns, few, and none at all."""

    def __init__(self, activation: Callable[[], nn.Module] = nn.ReLU6) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        made = {
            "none": nn.Identity(),
            "narrow": nn.Sequential(nn.Conv2d(4, 1, 1), activation(), nn.Conv2d(1, 4, 1)),
            "wide": nn.Sequential(nn.Conv2d(4, 16, 1), activation(), nn.Conv2d(16, 4, 1)),
        }
        self.block = gradnas.Choice(made, name="block")
        self.head = nn.Sequential(activation(), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.head(self.block(self.stem(x_BCHW)))


def images() -> DataLoader:
    x_BCHW = torch.randn(40, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    return DataLoader(TensorDataset(x_BCHW, torch.arange(40) % 4), 20)


def test_the_best_score_of_all_candidates_is_taken():
    data = images()
    search = Search(Maps(), seed=3, selection=ScoreSelection(likeliest=1, random=2))
    result = search.fit(data, data, F.cross_entropy, epochs=1, progress=False)
    best = search.chosen
    assert result.choices == {"block": "wide"}
    assert best.likeliest + best.random == 3 and best.clear == 2 and best.undecided is None
    # As scored without the search, on the first 16 held-out images; no training of it matters.
    network = result.derive()
    few = next(iter(data))[0][:16]
    assert best.value == Swap(repeats=4, seed=3).score(network, lambda net: net(few))
    assert "SWAP score on 4 drawings of the weights, none of them trained" in best.sentence
    untrained = Search(Maps(), seed=3, selection=ScoreSelection(likeliest=0, random=3), epochs=1)
    assert untrained.choose(data, data, F.cross_entropy).value == best.value


class Called(nn.Module):
    """A ReLU that is no module."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x)


def test_a_score_sees_relus_that_are_called_as_functions():
    data = images()
    scores = []
    for activation in (nn.ReLU, Called):
        selection = ScoreSelection(likeliest=0, random=3)
        search = Search(Maps(activation), seed=3, selection=selection, epochs=1)
        scores.append(search.choose(data, data, F.cross_entropy).value)
    assert scores[0] == scores[1]


def test_what_has_no_pattern_to_count_is_refused():
    data = images()
    search = Search(Maps(nn.Tanh), selection=ScoreSelection(), epochs=1)
    with pytest.raises(ValueError, match=r"counts the patterns of ReLU and ReLU6, and Maps runs"):
        search.choose(data, data, F.cross_entropy)
    for activation in (nn.Hardtanh, lambda: nn.Hardtanh(min_val=-2.0)):  # no case of a ReLU
        search = Search(Maps(activation), selection=ScoreSelection(), epochs=1)
        with pytest.raises(ValueError, match="and Maps runs none"):
            search.choose(data, data, F.cross_entropy)
    search = Search(Maps(nn.Tanh), selection=ScoreSelection())
    with pytest.raises(ValueError, match="and Maps runs none"):  # before anything is searched
        search.fit(data, data, F.cross_entropy, epochs=1)
    assert search.steps == 0
    with pytest.raises(ValueError, match="at least two candidates"):
        ScoreSelection(likeliest=0, random=1)
    with pytest.raises(ValueError, match="repeats must be at least 1"):
        ScoreSelection(repeats=0)
    with pytest.raises(ValueError, match="texts are read in chunks"):
        TextSearchConfig(selection=ScoreSelection())


@pytest.mark.slow
def test_a_search_keeps_its_budget_and_tells_what_it_measured(tmp_path):
    config = search_recipe("proxyless-digits")
    config = replace(
        config,
        data=replace(config.data, per_class=12),
        valid_per_class=6,
        epochs=1,
        warmup_epochs=0,
        selection=CandidateSelection(likeliest=3, random=4),
        cost=gradnas.ExpectedCost(budget_macs=1e6),
        candidates=0,
    )
    data = config.load()
    run = start_search(config, tmp_path / "run", data, torch.device("cpu"))
    results = run_search(config, run, data, torch.device("cpu"), progress=False)
    told = results["selection"]
    assert results["cost"] <= 1e6 and told["text"] == results["genotype"]
    assert told["likeliest"] == 3 and told["random"] == 4 and told["examples"] == 60
    # Of the chain that was taken, and not of that of the last epoch.
    skips = sum(block == "zero" for block in results["genotype"].split())
    assert results["skip_connections"] == skips
    said = " ".join(kind_of(config).sentences.of_search(config, results))
    assert "selection: the best of 7 candidates (3 by the alphas and 4 at random)" in said
    page = verdict_section(SimpleNamespace(path=run.path, results=results))
    assert page.startswith("<p>The best of 7 candidates (3 by the alphas and 4 at random) by loss")


def test_alphas_that_decide_nothing_are_named_beside_what_was_measured():
    results = {
        "genotype": "x",
        "selection": {"sentence": "the best of 9 candidates", "alphas": "nothing was decided: why"},
        "health": "nothing was decided: why",
    }
    said = IMAGES.sentences.of_search(search_recipe("digits"), results)
    assert said[:2] == ["genotype: x", "selection: the best of 9 candidates"]
    text = " ".join(said[2:])
    assert text.startswith("the alphas alone decide nothing here, so it rests on what was measured")
    assert text.count("nothing was decided") == 1
    page = verdict_section(SimpleNamespace(path=None, results=results))
    assert page.endswith(
        "The alphas alone decide nothing here, so it rests on what was measured.</p>"
    )
    # Measured, and no candidate stands out: no result.
    results["undecided"] = "nothing was decided: none is worse"
    said = IMAGES.sentences.of_search(search_recipe("digits"), results)
    assert said[0] == "no result: nothing was decided: none is worse"


def test_a_budget_may_be_for_larger_images_than_those_of_the_search():
    config = search_recipe("nas-bench-macro-small")
    images = DataConfig(source="digits", per_class=4).load()  # 8 pixels
    cost = gradnas.ExpectedCost(budget_macs=60e6)
    config = replace(config, cost=cost)
    assert example_input(config, images).shape == (1, 1, 32, 32)
    assert example_input(replace(config, cost_image_size=None), images).shape == (1, 1, 8, 8)
    assert example_input(replace(config, cost=None), images) is None
