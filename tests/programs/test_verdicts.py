"""The verdict of the searches of a run folder: of cells, chains, text and one's own tasks."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import gradnas
from gradnas import AlphaOptimizer, Choice, ConvCell, MBConvChain, RecurrentCell, Unrolled, runs
from gradnas.architectures.choices import Choices
from gradnas.cli import main
from gradnas.config import read_object
from gradnas.data import ChunkLengths, DataConfig, TextConfig
from gradnas.programs.reporting import write_report
from gradnas.programs.searching import run_search, start_search
from gradnas.search.verdict import Verdict
from gradnas.tasks.images.settings import SearchConfig
from gradnas.tasks.search import SearchTask
from gradnas.tasks.text.settings import TextSearchConfig

CPU = torch.device("cpu")
CELLS = SearchConfig(
    space=ConvCell(channels=2, cells=2, nodes=2),
    data=DataConfig(source="digits"),
    epochs=2,
    batch_size=256,
    alphas=AlphaOptimizer(lr=0.05),
    threads=1,
    checkpoint_seconds=0.0,
)
CHAINS = replace(
    CELLS,
    space=MBConvChain(
        stem_width=4,
        stem_stride=1,
        first_width=None,
        stages=((4, 2), (8, 1, 2)),
        candidates=("mb1_k3", "mb2_k3", "zero"),
        last_width=8,
        image_size=8,
    ),
)
DIGITS = CELLS.data.load()
# Bytes that a run which was killed and resumed has too.
REPRODUCED = (runs.METRICS, runs.ALPHAS, runs.GENOTYPE, runs.RESULTS)


def search(config, path, data=DIGITS):
    return run_search(config, start_search(config, path, data, CPU), data, CPU, progress=False)


def contents(path):
    return {name: (path / name).read_bytes() for name in REPRODUCED}


def check(path) -> Verdict:
    """The verdict in the results, which say what they were made of."""
    results = read_object(path / runs.RESULTS)
    verdict = Verdict.from_json(results["verdict"])
    assert results["verdict"]["sentence"] == verdict.sentence
    assert results["genotype"] == verdict.candidates[0].text
    assert len(verdict.candidates) == len({c.text for c in verdict.candidates})
    names = [choice.name for choice in verdict.choices]
    assert names == list(dict.fromkeys(names)) and names
    write_report(runs.Run.open(path))
    page = (path / runs.REPORT).read_text()
    assert "<h2>Verdict</h2>" in page
    assert "The architectures that were measured" in page or verdict.likeliest < 2
    return verdict


@pytest.mark.slow
def test_chains(tmp_path):
    search(replace(CHAINS, epochs=3), tmp_path / "r")
    verdict = check(tmp_path / "r")
    assert verdict.measure.name == "accuracy" and verdict.measure.text(0.5) == "50%"
    assert verdict.mixture is not None and verdict.examples >= 256


@pytest.mark.slow
def test_a_run_that_is_killed_in_its_verdict_makes_it_again(tmp_path, monkeypatch):
    search(CELLS, tmp_path / "whole")
    check(tmp_path / "whole")

    class Killed(BaseException):
        pass

    verdict = SearchTask.verdict

    def killed(self, *args):
        verdict(self, *args)
        raise Killed

    monkeypatch.setattr(SearchTask, "verdict", killed)
    path = tmp_path / "killed"
    with pytest.raises(Killed):
        search(CELLS, path)
    assert not (path / runs.RESULTS).exists()
    monkeypatch.setattr(SearchTask, "verdict", verdict)
    run_search(CELLS, runs.Run.open(path), DIGITS, CPU, progress=False)
    assert contents(path) == contents(tmp_path / "whole")
    # And without one the search is the same.
    search(replace(CELLS, candidates=0), tmp_path / "without")
    ours = contents(tmp_path / "without")
    assert ours[runs.METRICS] == contents(path)[runs.METRICS]
    assert ours[runs.ALPHAS] == contents(path)[runs.ALPHAS]
    assert "verdict" not in read_object(tmp_path / "without" / runs.RESULTS)


@pytest.mark.slow
def test_text(tmp_path):
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for split, lines in (("train", 120), ("valid", 60), ("test", 30)):
        (corpus / f"{split}.txt").write_text("a b c d e f g\nb c d e f g a\n" * lines)
    config = TextSearchConfig(
        space=RecurrentCell(hidden=6, embedding=6, nodes=2),
        gradient=Unrolled(clip=True),
        data=TextConfig(source=str(corpus)),
        chunks=ChunkLengths(base=9),
        epochs=3,
        batch_size=4,
        threads=1,
    )
    search(config, tmp_path / "r", config.load())
    verdict = check(tmp_path / "r")
    assert (verdict.measure.name, verdict.measure.noun) == ("loss", "tokens")
    assert [choice.name for choice in verdict.choices] == [
        "recurrent node 1",
        "recurrent node 2",
    ]


class Half(nn.Module):
    """Reads one half of its input."""

    def __init__(self, first: int) -> None:
        super().__init__()
        self.first = first
        self.norm = nn.BatchNorm1d(8)
        self.linear = nn.Linear(4, 8)

    def forward(self, x):
        return torch.relu(self.norm(self.linear(x[:, self.first : self.first + 4])))


def own_model() -> nn.Module:
    choice = Choice({"blind": Half(4), "sees": Half(0)}, name="body")
    return nn.Sequential(choice, nn.Linear(8, 2))


def own_data() -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(400, 8, generator=torch.Generator().manual_seed(0))
    return x, (x[:, :4].sum(1) > 0).long()


def by_network(net, batch):
    x, y = batch
    return F.cross_entropy(net.method("forward", x), y)


class Recall:
    """A measure that adds up over batches."""

    def reset(self):
        self.right = 0
        self.all = 0

    def update(self, outputs, target):
        self.right += int((outputs.argmax(1) == target).sum())
        self.all += len(target)

    def compute(self):
        return self.right / self.all


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "measure"),
    [
        ({"loss": F.cross_entropy, "measures": {"accuracy": gradnas.accuracy}}, "accuracy"),
        ({"loss": F.cross_entropy, "measures": {"recall": Recall()}}, "loss"),
        ({"loss": by_network}, "loss"),
    ],
    ids=["a measure", "a measure that adds up", "a loss of the network"],
)
def test_tasks_of_ones_own(settings, measure, tmp_path):
    task = gradnas.Task(model=own_model, train=own_data(), **settings)
    alphas = AlphaOptimizer(lr=0.01)
    run = gradnas.run_search(
        task, out=tmp_path / "r", epochs=12, alphas=alphas, progress=False, batch_size=25
    )
    verdict = check(tmp_path / "r")
    assert run.result.verdict == verdict and run.result.undecided == verdict.undecided
    assert run.result.best_of(2) == Choices.parse(verdict.best(2).text)
    assert verdict.measure.name == measure
    assert verdict.choices[0].chosen == "sees" and verdict.choices[0].state == "decided"
    assert verdict.has_all and len(verdict.candidates) == 2


@pytest.mark.slow
def test_the_picture_of_a_search_marks_what_its_results_call_undecided(tmp_path):
    """Also that of the first attempt: one that was killed at its end draws it once more."""
    task = gradnas.Task(model=own_model, train=own_data(), loss=F.cross_entropy)
    run = tmp_path / "r"
    gradnas.run_search(task, out=run, epochs=2, progress=False, batch_size=25, candidates=2)
    assert read_object(run / runs.RESULTS)["verdict"]["undecided"]
    assert main(["draw", str(run), "-o", str(tmp_path / "again.svg")]) == 0
    assert (tmp_path / "again.svg").read_bytes() == (run / runs.PICTURE).read_bytes()


class Gated(nn.Module):
    """A block that takes a keyword and gives a pair, as layers of transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, hidden, scale=1.0):
        return torch.tanh(self.linear(hidden)) * scale, None


class Stacked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Gated() for _ in range(2)])
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        for block in self.blocks:
            x = block(hidden=x, scale=2.0)[0]
        return self.head(x)


def replaced_model() -> nn.Module:
    return gradnas.replace(Stacked(), "blocks.?", lambda old: {"skip": gradnas.Skip(), "keep": old})


@pytest.mark.slow
def test_a_skip_is_trained_from_the_beginning_in_a_module_that_was_just_made(tmp_path):
    """It never ran there beside the operations that it gives the form of."""
    data = own_data()
    task = gradnas.Task(model=replaced_model, train=data, test=data, loss=F.cross_entropy)
    settings = {"progress": False, "epochs": 1}
    # Alphas that stay where they are: the first operation or the second, by their start.
    gradnas.run_search(task, out=tmp_path / "r", candidates=0, seed=1, **settings)
    folder = tmp_path / "r"
    text = (folder / runs.GENOTYPE).read_text().replace("keep", "skip")
    (folder / runs.GENOTYPE).write_text(text)
    gradnas.run_training(task, folder, **settings)
    trained = read_object(folder / "train" / runs.RESULTS)
    assert trained["num_params"] == 18  # of the head alone
