"""What is shown of choices in one's own module: a picture, and the sections of a report."""

import math
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from matplotlib.text import Text
from torch import nn

from gradnas import Choice, Genotype, runs
from gradnas.architectures.choices import Choices
from gradnas.families import CHOICES, FAMILIES, family_of, family_of_space
from gradnas.families.choices import report
from gradnas.pictures import choices
from gradnas.programs.reporting import write_report
from gradnas.spaces.your_module import ModuleSupernet

OFFERED = {
    "body": ["conv3", "conv5", "deep"],
    "body/operations/deep": ["relu", "gelu"],
    "a <b> & $c$": ["x", "y_" * 40],
}
CHOSEN = Choices({"body": "conv5", "a <b> & $c$": "x"})


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        inner = Choice({"relu": nn.ReLU(), "gelu": nn.GELU()})
        self.body = Choice({"conv3": nn.Conv2d(1, 1, 3), "deep": nn.Sequential(inner)})


def texts(figure):
    return [text.get_text().replace(r"\$", "$") for text in figure.findobj(Text)]


def test_the_chosen_operation_of_every_choice_is_marked():
    shown = texts(choices.figure(CHOSEN, known=choices.Known(OFFERED), title="mine"))
    assert {"mine", "body", "✓ conv5", "conv3", "deep", "✓ x", "relu", "gelu"} <= set(shown)
    assert not {"conv5", "x", "✓ conv3", "✓ relu", "✓ gelu"} & set(shown)
    assert {"chosen", "not chosen", "choice that is never reached"} <= set(shown)
    assert "y_" * 40 not in shown and any(text.endswith("…") for text in shown)


def test_without_the_operations_the_chosen_ones_are_shown():
    shown = texts(choices.figure(CHOSEN))
    assert {"✓ conv5", "✓ x"} <= set(shown)
    assert not {"conv3", "chosen", "choice that is never reached"} & set(shown)
    texts(choices.figure({}))  # a module without choices has no supernet, but a file may say so


@pytest.mark.parametrize("name", ["body", "a/b/c" * 30, "no_part_of_it_can_be_told" * 4, "/", "."])
def test_a_name_is_broken_into_lines_without_loss(name):
    lines = choices._lines(name)
    assert "".join(lines) == name
    assert all(0 < len(line) <= choices.NAME_SIGNS for line in lines)


def test_no_box_leaves_the_page():
    many = {"body": [f"operation_number_{n}" for n in range(40)]}
    figure = choices.figure({"body": "operation_number_7"}, known=choices.Known(many))
    assert figure.get_size_inches()[0] * 72 <= choices.PAGE


@pytest.mark.parametrize("suffix", ["svg", "png", "pdf"])
def test_the_same_choices_give_the_same_bytes(tmp_path, suffix):
    supernet = ModuleSupernet(Net())
    chosen = Choices(supernet.decide())
    one = CHOICES.picture(chosen, tmp_path / f"a.{suffix}", title="mine", space=supernet)
    other = CHOICES.picture(chosen, tmp_path / f"b.{suffix}", title="mine", space=supernet)
    assert one.read_bytes() == other.read_bytes()
    plain = CHOICES.picture(chosen, tmp_path / f"c.{suffix}")
    assert plain.read_bytes() != one.read_bytes()


def make_search(path, architecture=CHOSEN, offered=OFFERED, epochs=3):
    """The folder of a search over one's own module."""
    config = {
        "type": "SearchConfig",
        "space": {"type": "MyModule", **({} if offered is None else {"choices": offered})},
        "relaxation": {"type": "Softmax"},
        "data": {"source": "digits"},
        "epochs": epochs,
        "seed": 0,
    }
    run = runs.Run.create(path, config, 0, torch.device("cpu"))
    run.set_status("finished")
    for epoch in range(epochs):
        run.append(runs.METRICS, {"epoch": epoch, "derived_valid_accuracy": 0.5})
    tables = {}
    for name, operations in OFFERED.items():
        for n in range(epochs + 1):
            tables[f"{name}/{n:04}"] = n * torch.arange(float(len(operations)))
    run.save_tensors(runs.ALPHAS, tables)
    architecture.save(run.path / runs.GENOTYPE)
    return run


def test_the_report_of_a_search_tells_its_choices(tmp_path):
    page = write_report(make_search(tmp_path / "run")).read_text()
    assert "<h2>Choices</h2>" in page and "<h2>Mixing weights</h2>" in page
    rows = re.findall(r"<tr><td>(.*?)</td><td>(.*?)</td><td>(.*?)</td><td>(.*?)</td></tr>", page)
    share = math.exp(3) / (1 + math.exp(3) + math.exp(6))  # logits 0, 3, 6
    first, second, third = rows[:3]  # by name
    assert first[:2] == ("a &lt;b&gt; &amp; $c$", "x")
    assert second == ("body", "conv5", f"{share:.3f}", f"deep ({share * math.exp(3):.3f})")
    assert third[:3] == ("body/operations/deep", "not reached", "")
    assert "How good the network is" in page
    ET.fromstring(page[page.index("<body>") : page.index("</html>")])  # whatever the names are


def test_operations_without_names_are_numbered(tmp_path):
    page = write_report(make_search(tmp_path / "run", offered=None)).read_text()
    assert "operation 3 (" in page and "conv3" not in page


def test_tables_that_do_not_fit_the_choices_are_refused(tmp_path):
    run = make_search(tmp_path / "run")
    run.save_tensors(runs.ALPHAS, {"body/0000": torch.zeros(2)})
    with pytest.raises(ValueError, match=r"'body/0000' has the shape \(2,\), .* says \(3,\)"):
        write_report(run)
    run.save_tensors(runs.ALPHAS, {"other/0000": torch.zeros(2)})
    with pytest.raises(ValueError, match=r"'other/0000' is not a choice and a number of epochs"):
        write_report(run)


def test_every_architecture_has_one_family():
    for architecture in (
        CHOSEN,
        Genotype.named("DARTS"),
        Genotype.named("ENAS"),
        *(
            family.architecture.named(name)
            for family in FAMILIES
            for name in family.architecture.names()
        ),
    ):
        assert sum(family.holds(architecture) for family in FAMILIES) == 1
        assert family_of(architecture).holds(architecture)
    assert family_of_space(ModuleSupernet(Net())) is CHOICES
    with pytest.raises(TypeError, match="no family holds a str"):
        family_of("conv3")


def test_choices_have_no_recipe():
    with pytest.raises(ValueError, match="runs/x holds choices of a module of your own"):
        CHOICES.training_after("runs/x", {})


def test_nothing_is_decided_that_nobody_has_judged():
    results = {"genotype": CHOSEN.to_text(), "steps": 3}
    names = list(CHOSEN)
    assert report._undecided(results | {"no_verdict": "why"}) == names
    assert report._undecided({"genotype": CHOSEN.to_text(), "test_loss": 1.0}) == []  # a training
    judged = [{"name": name, "state": "decided"} for name in names]
    judged[-1]["state"] = "not compared"
    verdict = {"undecided": [], "choices": judged}
    assert report._undecided(results | {"verdict": verdict}) == names[-1:]


def test_a_choice_that_the_measurements_do_not_decide_is_marked():
    known = choices.Known(OFFERED, undecided=list(CHOSEN)[:1])
    shown = " ".join(texts(choices.figure(CHOSEN, known=known)))
    first, *others = CHOSEN.values()
    assert f"? {first}" in shown and "chosen, but undecided" in shown
    for other in others:
        assert f"✓ {other}" in shown
    every = choices.Known(OFFERED, undecided=list(CHOSEN))
    assert "✓" not in " ".join(texts(choices.figure(CHOSEN, known=every)))


@pytest.mark.parametrize("shape", [(3, 14, 2), (3, 3)])
def test_alphas_of_something_else_are_refused(shape):
    settings = {"choices": {"body": ["a", "b"]}}
    folder = SimpleNamespace(
        path=Path("r"),
        alphas={"body": torch.zeros(shape)},
        setting=lambda *keys, kind: settings,
        names=lambda *keys: settings["choices"]["body"],
    )
    with pytest.raises(ValueError, match=r"alphas.safetensors: 'body' has the shape \(3, "):
        report.mixing(folder)
