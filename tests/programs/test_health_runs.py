"""The health of searches in a run folder: metrics, results, report, terminal, and the guard."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import gradnas
from gradnas import runs
from gradnas.config import read_object
from gradnas.data import ChunkLengths, DataConfig, TextConfig
from gradnas.programs import watching
from gradnas.programs.reporting import write_report
from gradnas.programs.searching import prepared_search
from gradnas.search.sharpness import Eigenvalue, Sharpness
from gradnas.tasks.images.settings import SearchConfig
from gradnas.tasks.text.settings import TextSearchConfig
from tests.cases import TwoChoices


class SixEqual(nn.Module):
    """Choices between layers of which none is better than another for targets that are noise."""

    def __init__(self) -> None:
        super().__init__()
        parts = []
        for place in range(6):
            layers = {name: nn.Linear(4, 4) for name in ("a", "b", "c")}
            parts.append(gradnas.Choice(layers, name=f"c{place}"))
        self.parts = nn.Sequential(*parts)

    def forward(self, x_BF: torch.Tensor) -> torch.Tensor:
        return self.parts(x_BF)


WRITTEN = (runs.METRICS, runs.ALPHAS, runs.GENOTYPE, runs.RESULTS)


def task() -> gradnas.Task:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(16, 3, 6, 6, generator=generator)
    y = torch.randint(0, 5, (16,), generator=generator)
    return gradnas.Task(model=TwoChoices, train=(x, y), test=(x, y), loss=F.cross_entropy)


def growing(self: Sharpness, valid_loss: object) -> bool:
    """Eigenvalues of a search that should have been over after epoch 5."""
    del valid_loss
    epochs = self.passes.schedule.epoch
    if not self.series or self.series[-1].epochs < epochs:
        self.series.append(Eigenvalue(epochs, 1.0 if epochs < 12 else 3.0))
    return False


def turning(self: Sharpness, valid_loss: object) -> bool:
    """The same, of alphas that another operation leads in every epoch but the last."""
    epochs = self.passes.schedule.epoch
    if epochs < 12 and (not self.series or self.series[-1].epochs < epochs):
        with torch.no_grad():
            for alpha in self.passes.alphas.values():
                alpha.copy_(alpha.roll(1, -1))
    return growing(self, valid_loss)


def searched(path, **options):
    settings = {"epochs": 16, "batch_size": 8, "device": "cpu", "candidates": 0}
    return gradnas.run_search(task(), out=path, progress=False, **(settings | options))


@pytest.mark.slow
def test_the_guard_ends_a_search_with_an_earlier_decision(tmp_path, monkeypatch):
    monkeypatch.setattr(Sharpness, "measure", growing)
    path = tmp_path / "r"
    run = searched(path, guard="stop")
    results = read_object(path / runs.RESULTS)
    assert results["stopped"] == {"after": 13, "decision": 5}
    rows = runs.Run(path).records(runs.METRICS)
    assert len(rows) == 13
    assert results["genotype"] == rows[4]["genotype"]
    assert run.result.decision.to_text() == rows[4]["genotype"]
    assert rows[-1]["health"].startswith("the validation loss becomes sharp in the alphas")
    write_report(runs.Run.open(path))
    page = (path / runs.REPORT).read_text()
    assert "Health of the search" in page and "The guard ended the search after epoch 13" in page
    assert "were lost" not in page
    seen = watching.look(path)
    lines = "\n".join(seen.lines(100, 40, 0.0))
    assert "The guard ended the search after epoch 13 of 16" in lines and "entropy" in lines
    assert any("warning: The validation loss" in line for line in seen.epoch_lines(0))

    # Killed after the epoch in which it stopped, and resumed: the same files.
    class Killed(Exception):
        pass

    def kill(epoch) -> None:
        if epoch.number == 13:
            raise Killed

    with pytest.raises(Killed):
        searched(tmp_path / "k", guard="stop", on_epoch=kill)
    searched(tmp_path / "k", resume=True)
    for name in WRITTEN:
        assert (tmp_path / "k" / name).read_bytes() == (path / name).read_bytes(), name


@pytest.mark.slow
@pytest.mark.parametrize("epochs", [13, 16])
def test_results_are_of_the_decision_that_the_guard_took(epochs, tmp_path, monkeypatch):
    monkeypatch.setattr(Sharpness, "measure", turning)
    path = tmp_path / "r"
    run = searched(path, guard="stop", epochs=epochs, seed=1, candidates=2)
    results = read_object(path / runs.RESULTS)
    rows = runs.Run(path).records(runs.METRICS)
    assert results["stopped"] == {"after": 13, "decision": 5}
    assert results["genotype"] == rows[4]["genotype"] != rows[-1]["genotype"]
    takes = "the guard takes an earlier" if epochs == 13 else "the guard ended the search after"
    assert results["health"].startswith(takes)
    # The metrics of the last epoch are of the last decision; these are not.
    assert results["derived_valid_loss"] != rows[-1]["derived_valid_loss"]
    assert results["derived_valid_loss"] == pytest.approx(run.result.verdict.derived, rel=1e-5)


def test_an_unknown_guard_is_refused(tmp_path):
    with pytest.raises(ValueError, match="guard must be 'warn', 'stop' or 'off', not 'on'"):
        searched(tmp_path / "r", guard="on")
    assert not (tmp_path / "r").exists()


def cells(tmp_path) -> SearchConfig:
    del tmp_path
    space = gradnas.ConvCell(channels=2, cells=2, nodes=1)
    return SearchConfig(space=space, data=DataConfig(source="digits"), batch_size=16, threads=1)


def text(tmp_path) -> TextSearchConfig:
    for split in ("train", "valid", "test"):
        (tmp_path / f"{split}.txt").write_text("a b c d e f g\nb c d e f g a\n" * 60)
    space = gradnas.RecurrentCell(hidden=4, embedding=4, nodes=2)
    return TextSearchConfig(
        space=space,
        gradient=gradnas.Unrolled(clip=True),
        data=TextConfig(source=str(tmp_path)),
        chunks=ChunkLengths(base=5),
        batch_size=4,
        threads=1,
    )


@pytest.mark.parametrize("kind", [pytest.param(cells, marks=pytest.mark.slow), text])
def test_steps_are_the_same_with_and_without_a_measurement(kind, tmp_path):
    config = kind(tmp_path)
    data = config.load()
    states = []
    for paid in (0, -1000):  # of no step, and of a thousand that pay for a measurement
        task = prepared_search(config, data, torch.device("cpu"))
        task.search.health.sharpness._paid = paid
        task.start_epoch()
        for number, batch in enumerate(task.batches()):
            task.step(batch)
            if number == 1:
                break
        assert (task.search.health.sharpness.measured is None) == (paid == 0)
        state = task.state_dict()
        del state["search"]["health"]
        states.append(state)
    assert_same(states[0], states[1])


def assert_same(one: object, other: object) -> None:
    """Equal trees of tensors and plain values."""
    if isinstance(one, torch.Tensor):
        assert isinstance(other, torch.Tensor) and torch.equal(one, other)
    elif isinstance(one, dict):
        assert isinstance(other, dict) and list(one) == list(other)
        for key, value in one.items():
            assert_same(value, other[key])
    elif isinstance(one, (list, tuple)):
        assert isinstance(other, (list, tuple)) and len(one) == len(other)
        for own, its in zip(one, other, strict=True):
            assert_same(own, its)
    else:
        assert one == other


@pytest.mark.slow
def test_a_search_that_decides_nothing_gives_no_result(tmp_path):
    path = tmp_path / "r"
    alphas = gradnas.AlphaOptimizer(lr=0.01, betas=(0.0, 0.999), weight_decay=0.0)
    settings = {"epochs": 8, "batch_size": 8, "device": "cpu", "candidates": 0, "alphas": alphas}
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 4, generator=generator)
    noise = torch.randn(64, 4, generator=generator)
    own = gradnas.Task(model=SixEqual, train=(x, noise), test=(x, noise), loss=F.mse_loss)
    gates = gradnas.BinaryGates()
    gradnas.run_search(own, out=path, progress=False, relaxation=gates, **settings)
    results = read_object(path / runs.RESULTS)
    assert results["undecided"].startswith("nothing was decided: in ")
    assert results["no_hessian"].startswith("the search was too short for it")
    config = gradnas.tasks.your_task.settings.TaskSearchConfig
    kind = gradnas.tasks.kind_of(config.__name__)
    said = kind.sentences.of_search(
        config.of(gradnas.tasks.your_task.given.GivenTask(own)), results
    )
    assert said[0].startswith("no result: nothing was decided")
    assert any("what is strongest, which may be chance" in one for one in said)
    assert max(len(one) for one in said) <= 80
