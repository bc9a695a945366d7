"""The report: it tells what a run folder holds, honestly, in one page that needs nothing else."""

import dataclasses
import html.parser
import json
import re
import statistics
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import torch

from gradnas import runs
from gradnas.architectures.genotype import Genotype
from gradnas.config import to_json
from gradnas.families.cells import recipes
from gradnas.pictures.mixing_weights import readable
from gradnas.programs.reporting import complete_folder, write_report
from gradnas.relaxations import BinaryGates
from gradnas.reports.blank import blank_section
from gradnas.reports.folder import RandomCells
from gradnas.search.folder import IN_PYTHON
from gradnas.spaces import ConvCell
from gradnas.tasks.images.outcome import compared

NORMAL = [("sep_conv_3x3", 0), ("skip_connect", 1), ("max_pool_3x3", 0), ("dil_conv_5x5", 2)]
CELL = Genotype.conv(NORMAL, NORMAL)
COLLAPSED = Genotype.conv([("skip_connect", 0), ("skip_connect", 1), NORMAL[2], NORMAL[3]], NORMAL)
OPERATIONS = ("none", "max_pool_3x3", "skip_connect", "sep_conv_3x3", "dil_conv_5x5")
SPACE = ConvCell(channels=4, cells=2, nodes=2, operations=OPERATIONS)
VOID = {"meta", "link", "img", "br", "hr", "input"}


# -- run folders -----------------------------------------------------------------------------------


def begin(path, config, status="finished", **more):
    run = runs.Run.create(path, to_json(config), config.seed, torch.device("cpu"))
    run.set_status(status, **more)
    return run


def add_epochs(run, records):
    for epoch, record in enumerate(records):
        run.append(runs.METRICS, {"epoch": epoch, **record, "peak_memory_mib": 60.5})
        run.append(
            runs.TIMINGS,
            {"epoch": epoch, "seconds": 1.25 + epoch, "measured_peak_memory_mib": 400.0},
        )


def make_search(path, epochs=3, done=3, status="finished", genotype=CELL, space=SPACE, **more):
    """The folder of a search as `experiment.run_search` leaves it after `done` epochs."""
    config = dataclasses.replace(recipes.digits(), space=space, epochs=epochs)
    run = begin(path, config, status, **more)
    skips = sum(name == "skip_connect" for name, _ in genotype.normal)
    records = [
        {
            "steps": 5 * (n + 1),
            "lr": 0.05,
            "train_loss": 2.0 / (n + 1),
            "train_accuracy": 1 - 0.7 / (n + 1),
            **(
                {"search_valid_loss": 1.9 / (n + 1), "search_valid_accuracy": 1 - 0.8 / (n + 1)}
                if n
                else {}
            ),
            "valid_loss": 2.1 / (n + 1),
            "valid_accuracy": 1 - 0.75 / (n + 1),
            "derived_valid_loss": 2.2 / (n + 1),
            "derived_valid_accuracy": 0.6 - 0.4 / (n + 1),
            "discretisation_gap": 0.4 - 0.35 / (n + 1),
            "entropy_normal": 1.6 - 0.1 * n,
            "entropy_reduce": 1.6 - 0.05 * n,
            "skip_connections": skips,
            "genotype": genotype.to_text(),
        }
        for n in range(done)
    ]
    add_epochs(run, records)
    if done:
        table = torch.linspace(-1, 1, space.num_edges * len(space.names)).reshape(
            space.num_edges, -1
        )
        steps = range(done + 1)
        run.save_tensors(
            runs.ALPHAS,
            {f"{name}/{n:04}": table * n for name in ("normal", "reduce") for n in steps},
        )
    if status == "finished":
        genotype.save(run.path / runs.GENOTYPE)
        runs.write_json(
            run.path / runs.RESULTS, {"genotype": genotype.to_text(), "steps": 5 * done}
        )
    return run


def make_training(
    path,
    accuracy=0.981,
    random=None,
    done=2,
    status="finished",
    genotype=CELL,
    weights=5000,
    **more,
):
    """The folder of a training as `training.train` leaves it; `random` are the test accuracies of
    random cells."""
    config = dataclasses.replace(
        recipes.digits_eval(genotype),
        space=SPACE,
        epochs=2,
        random_cells=len(random or []),
    )
    run = begin(path, config, status, **more)
    genotype.save(run.path / runs.GENOTYPE)
    losses = [
        {"lr": 0.05, "train_loss": 1.0 / (n + 1), "train_accuracy": 0.5 + 0.2 * n}
        for n in range(done)
    ]
    add_epochs(run, losses)
    if status != "finished":
        return run
    results = {
        "test_accuracy": accuracy,
        "test_loss": 0.1,
        "num_test_images": 360,
        "num_params": weights,
    }
    if random:
        results["random_cells"] = {
            "test_accuracies": random,
            "mean_test_accuracy": statistics.fmean(random),
            "std_test_accuracy": statistics.stdev(random) if len(random) > 1 else 0.0,
            "genotypes": [CELL.to_text()] * len(random),
        }
        for k, value in enumerate(random):
            make_training(path / "random" / str(k), value, weights=4000 + 100 * k)
    runs.write_json(run.path / runs.RESULTS, results)
    return run


def page_of(run):
    return write_report(run).read_text(encoding="utf-8")


def text_of(page):
    """What a reader sees outside of pictures, in one line."""
    page = re.sub(r"<(svg|style)\b.*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", page)).split())


class Checker(html.parser.HTMLParser):
    """Every element is closed, in order; collects elements, ids, references and pictures."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.ids, self.references = [], set(), [], []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.ids += [value for name, value in attrs if name == "id"]
        for name, value in attrs:
            assert not name.startswith("on"), (tag, name)
            if name in ("href", "src", "xlink:href"):
                self.references.append(value)
            self.references += re.findall(r"url\((.*?)\)", value or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def check(page):
    """The page is well-formed, asks for nothing from elsewhere, runs nothing, and its pictures do
    not collide."""
    found = Checker(page)
    assert len(found.ids) == len(set(found.ids))
    assert all(
        reference.startswith("#") and reference[1:] in found.ids for reference in found.references
    )
    assert not found.tags & {
        "script",
        "link",
        "iframe",
        "img",
        "image",
        "object",
        "embed",
        "base",
        "form",
    }
    assert (
        "http" not in page
        and "@import" not in page
        and "//" not in re.sub(r"<pre>.*?</pre>", "", page)
    )
    for picture in re.findall(r"<svg\b.*?</svg>", page, flags=re.DOTALL):
        root = ET.fromstring(picture)
        own = {element.get("id") for element in root.iter()}
        assert root.get("id") is not None
        assert {name[1:] for name in re.findall(r'(?:href="|url\()(#[^")]*)', picture)} <= {
            f"{i}" for i in own
        }
        for style in root.iter("style"):
            assert (style.text or "").strip().startswith(f"#{root.get('id')} *")
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The page of a finished search with its training and random cells."""
    run = make_search(tmp_path_factory.mktemp("runs") / "digits 1")
    make_training(run.path / "train", 0.981, [0.97, 0.976, 0.976, 0.974, 0.98])
    path = write_report(run)
    assert path == run.path / "report.html"
    return run, path.read_text(encoding="utf-8")


# -- what it tells ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_search_with_training(whole):
    run, page = whole
    check(page)
    text = text_of(page)
    assert text.startswith("gradnas: digits 1, report of a search")
    assert "The searched cell reaches 98.1% on 360 held-out test images; five random cells" in text
    assert "97.5% ± 0.4% (mean ± standard deviation, n = 5): the search helped" in text
    assert "better than five of the five random cells" in text
    assert "+0.6 points, 1.6 standard deviations" in text
    assert "One test image is 0.28 points" in text
    assert (
        "5,000 weights, those of the random cells 4,000 to 4,400; being the largest may be a part"
        in text
    )
    assert CELL.to_text() in text
    headings = re.findall(r"<h2>(.*?)</h2>", page)
    assert headings == [
        "Cells",
        "Beside alphas that never learnt",
        "Compared with random cells",
        "Over the epochs",
        "Mixing weights",
        "Genotype",
        "Settings",
        "Environment",
        "Time and memory",
        "How to go on",
    ]
    assert (
        "discretisation gap, by which the supernet is better than the network derived from it, is "
        "+28.3 points" in text
    )
    assert "batch_size 64" in text and "weights WeightOptimizer lr 0.05" in text
    assert "genotype as above" in text
    assert "search 3 2.25 s 6.75 s 60 MiB 400 MiB" in text
    assert "random cells (5) 10 1.75 s 17.5 s" in text
    assert (
        f"gradnas evaluate '{run.path}'" in text
        and "gradnas resume" not in text
        and "gradnas train" not in text
    )
    pictures = re.findall(r'<svg id="(plot-[^"]*)"', page)
    assert pictures == [
        "plot-comparison",
        "plot-search",
        "plot-training",
        "plot-mix-normal",
        "plot-lines-normal",
        "plot-mix-reduce",
        "plot-lines-reduce",
        "plot-decided",
    ]


def test_heat_map_shows_the_tables_with_names_from_the_configuration(whole):
    run, page = whole
    picture = re.search(r'<svg id="plot-mix-normal".*?</svg>', page, flags=re.DOTALL)[0]
    texts = [element.text.strip() for element in ET.fromstring(picture).iter("text")]
    assert texts[:5] == [readable(name) for name in OPERATIONS]
    edges = ["cₖ₋₂ → 0", "cₖ₋₁ → 0", "cₖ₋₂ → 1", "cₖ₋₁ → 1", "0 → 1"]
    assert [text for text in texts if "→" in text] == edges
    last = run.load_tensors(runs.ALPHAS)["normal/0003"].softmax(-1)
    written = [float(text) for text in texts if re.fullmatch(r"0\.\d\d", text)]
    assert written == pytest.approx(last.flatten().tolist(), abs=0.0051)
    # The operations of the derived cell are framed.
    assert picture.count("stroke: #b3261e") == len(CELL.normal)


@pytest.mark.parametrize("random", [None, [0.9], [0.9, 0.95, 0.92]], ids=["none", "one", "three"])
def test_training_alone(tmp_path, random):
    page = page_of(make_training(tmp_path / "train", 0.95, random))
    check(page)
    text = text_of(page)
    assert "The cell reaches 95.0% on 360 held-out test images" in text
    assert "Mixing weights" not in text and "searched" not in text
    assert ("No random cells were trained in the same way" in text) == (random is None)
    assert ("one is too few to tell whether the cell is better than random ones" in text) == (
        random == [0.9]
    )
    assert f"gradnas train {tmp_path}/train/config.json" in text


@pytest.mark.slow
@pytest.mark.parametrize("done", [0, 1])
@pytest.mark.parametrize("status", ["running", "interrupted", "failed"])
def test_unfinished_search(tmp_path, done, status):
    run = make_search(tmp_path / "run", done=done, status=status, message="the loss is NaN")
    page = page_of(run)
    check(page)
    text = text_of(page)
    words = {
        "running": "not finished",
        "interrupted": "was interrupted",
        "failed": "has failed (the loss is NaN)",
    }
    are = "is" if done == 1 else "are"
    assert words[status] in text and f"{done} of 3 epochs {are} done" in text
    assert f"gradnas resume {run.path}" in text and "gradnas draw" not in text
    assert ("No epoch is finished yet" in text) == (done == 0)
    assert ("After 1 of 3 epochs, on the images that train the alphas" in text) == (done == 1)
    assert ("They are what the alphas said after epoch 1" in text) == (done == 1)
    assert "nan" not in page.lower().replace("nan)", "")


@pytest.mark.slow
def test_unfinished_training(tmp_path):
    run = make_search(tmp_path / "run")
    make_training(run.path / "train", done=1, status="interrupted")
    text = text_of(page_of(run))
    assert "The training in train/ was interrupted and saved; 1 of 2 epochs is done" in text
    assert f"gradnas resume {run.path}/train" in text
    assert "How good the cell is once it is trained from scratch is not known yet" in text
    text = text_of(page_of(runs.Run(run.path / "train")))
    assert (
        "After 1 of 2 epochs the network reaches 50.0% on the images that it is trained on" in text
    )


def test_training_whose_random_cells_are_under_way(tmp_path):
    run = make_training(tmp_path / "train", random=[0.9, 0.95, 0.92])
    (run.path / runs.RESULTS).unlink()
    run.set_status("running")
    runs.Run(run.path / "random" / "2").set_status("interrupted")
    assert "all 2 epochs are done, and 2 of three random cells trained" in text_of(page_of(run))


def test_search_cut_short_by_max_steps(tmp_path):
    run = make_search(tmp_path / "run", done=0)
    add_epochs(
        run, [{"steps": 3, "train_loss": 2.0, "train_accuracy": 0.1, "genotype": CELL.to_text()}]
    )
    text = text_of(page_of(run))
    assert "has stopped after 3 steps, before an evaluation" in text


def test_collapse_is_said_in_plain_words(whole, tmp_path):
    text = text_of(page_of(make_search(tmp_path / "run", genotype=COLLAPSED)))
    assert (
        text.count(
            "2 of the 4 operations of the normal cell are skip connections: the search may have "
            "collapsed"
        )
        == 2
    )
    assert "use a second-order gradient" in text
    _, healthy = whole
    assert "collapsed" not in text_of(healthy)


def test_another_cell_than_the_searched_one_is_not_called_so(tmp_path):
    run = make_search(tmp_path / "run")
    make_training(run.path / "train", 0.98, [0.90, 0.91, 0.92], genotype=COLLAPSED)
    text = text_of(page_of(run))
    assert "The trained cell reaches" in text and "the cell is better than random ones." in text
    assert "The cell that was trained is not the one that this search ended with" in text
    assert "search helped" not in text


# -- the baseline ----------------------------------------------------------------------------------


def test_the_baseline_is_shown_where_it_was_run_and_its_command_where_not(tmp_path):
    run = make_search(tmp_path / "run")
    text = text_of(page_of(run))
    config = tmp_path / "run" / "config.json"
    selection = "perturbation-selection:interval=1,learn_alphas=false"
    assert f"gradnas search {config} --selection {selection} --out {tmp_path}/run-blank" in text
    blank = make_search(tmp_path / "run-blank", genotype=COLLAPSED)
    for own, value in ((run, 0.5), (blank, 0.625)):
        results = {"genotype": CELL.to_text(), "steps": 3, "verdict": {"derived": value}}
        (own.path / runs.RESULTS).write_text(json.dumps(results))
    section = blank_section(complete_folder(run.path))
    assert "gradnas search" not in section
    assert COLLAPSED.to_text().replace("'", "&#x27;") in section
    assert "0.5</td><td>0.625" in section
    # One edge of eight is another one, and the concats are the same.
    own = CELL.parts()
    same = sum(COLLAPSED.parts()[place] == what for place, what in own.items())
    assert 0 < same < len(own)
    assert f"{same} of {len(own)} decisions" in section


def test_no_baseline_for_the_baseline_itself_nor_within_a_budget(tmp_path):
    run = make_search(tmp_path / "run")
    folder = complete_folder(run.path)
    blank = {"type": "PerturbationSelection", "learn_alphas": False}
    own = dataclasses.replace(folder, config={**folder.config, "selection": blank})
    assert blank_section(own) == ""
    within = dataclasses.replace(folder, config={**folder.config, "cost": {"type": "ExpectedCost"}})
    assert "keep no budget" in blank_section(within) and "gradnas" not in blank_section(within)
    gates = to_json(BinaryGates())
    sampled = dataclasses.replace(folder, config={**folder.config, "relaxation": gates})
    assert "--relaxation softmax --gradient first-order" in blank_section(sampled)
    data = {"type": "TaskData", "source": IN_PYTHON}
    loop = dataclasses.replace(folder, config={**folder.config, "data": data})
    assert "selection=PerturbationSelection(interval=1, learn_alphas=False)" in blank_section(loop)


# -- the verdict -----------------------------------------------------------------------------------


def random_cells(mean, std, number=5):
    return RandomCells((mean,) * number, mean, std)


@pytest.mark.parametrize(
    ("accuracy", "random", "images", "words", "tone"),
    [
        (0.990, random_cells(0.976, 0.004), 10_000, "the search helped.", "good"),
        (
            0.982,
            random_cells(0.976, 0.004),
            10_000,
            "the search helped, though by less than two standard",
            "open",
        ),
        (0.979, random_cells(0.976, 0.004), 10_000, "the search made no clear difference.", "open"),
        (0.973, random_cells(0.976, 0.004), 10_000, "the search made no clear difference.", "open"),
        (
            0.980,
            random_cells(0.976, 0.004),
            10_000,
            "the search made no clear difference.",
            "open",
        ),  # exactly one
        (
            0.970,
            random_cells(0.976, 0.004),
            10_000,
            "the search did worse, though by less than two standard",
            "open",
        ),
        (0.960, random_cells(0.976, 0.004), 10_000, "the search did worse.", "bad"),
        (
            0.978,
            random_cells(0.976, 0.0),
            360,
            "the search made no clear difference.",
            "open",
        ),  # less than one image
        (0.980, random_cells(0.976, 0.0), 360, "the search helped.", "good"),
        (
            0.999,
            random_cells(0.9, 0.0, 1),
            360,
            "one is too few to tell whether the search helped.",
            "open",
        ),
        (
            0.999,
            random_cells(0.9, 0.001, 2),
            360,
            "two are too few to tell whether the search helped.",
            "open",
        ),
        (0.980, random_cells(0.976, 0.001), None, "the search helped.", "good"),
    ],
)
def test_verdict(accuracy, random, images, words, tone):
    found = compared("The searched cell reaches so much", accuracy, random, images, searched=True)
    assert words in found.sentence and found.tone == tone
    assert (
        sum(
            claim in found.sentence
            for claim in (": the search helped", "no clear difference", "did worse")
        )
        <= 1
    )
    if len(random.values) > 2:
        assert f"(mean ± standard deviation, n = {len(random.values)})" in found.sentence
    other = compared("The cell reaches so much", accuracy, random, images, searched=False)
    assert "search" not in other.sentence and other.tone == tone


# -- what it may never do --------------------------------------------------------------------------

HOSTILE = "<script>alert('1')</script> & \"$x^2$ ]]> --> \x00\x1b\u202e"


@pytest.mark.slow
def test_hostile_strings_are_escaped(tmp_path):
    edges = [(HOSTILE, 0), ("sep_conv_3x3", 1)] * 2
    run = make_search(tmp_path / "<b>&run", status="failed", message=HOSTILE)
    config = json.loads((run.path / runs.CONFIG).read_text())
    config["space"]["operations"][1:3] = [HOSTILE, "漢字"]
    config["data"]["source"] = HOSTILE
    config[HOSTILE] = {"type": HOSTILE, HOSTILE: [HOSTILE]}
    runs.write_json(run.path / runs.CONFIG, config)
    runs.write_json(run.path / runs.ENVIRONMENT, {"device_name": HOSTILE})
    Genotype.conv(edges, edges).save(run.path / runs.GENOTYPE)
    page = page_of(run)
    check(page)
    assert "<script" not in page and "alert" in page and "\x00" not in page and "\x1b" not in page
    assert "&lt;b&gt;&amp;run" in page
    assert "'\"'\"'" not in page and "gradnas resume '" in html.unescape(page)  # quoted for a shell


def test_same_folder_gives_the_same_bytes_whatever_the_settings_of_matplotlib(whole):
    import matplotlib

    run, page = whole
    with matplotlib.rc_context(
        {"font.size": 30, "svg.fonttype": "path", "lines.linewidth": 9, "axes.grid": False}
    ):
        assert page_of(run) == page
    assert not list(run.path.glob(".report*"))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (runs.CONFIG, b"{"),
        (runs.CONFIG, b'{"type": "Other"}'),
        (runs.CONFIG, b'{"type": "SearchConfig"}'),
        (runs.STATUS, b"[]"),
        (runs.ENVIRONMENT, b"\xff"),
        (runs.METRICS, b"{\n"),
        (runs.METRICS, b"3\n"),
        (runs.METRICS, b'{"epoch": "1"}\n'),
        (runs.METRICS, b'{"epoch": 0, "train_loss": NaN}\n'),
        (runs.METRICS, b'{"epoch": 0, "train_loss": "low"}\n'),
        (runs.TIMINGS, b'{"epoch": 0, "seconds": true}\n'),
        (runs.ALPHAS, b"nonsense"),
        (runs.GENOTYPE, b"Genotype("),
        ("train/results.json", b'{"test_accuracy": "high"}'),
        ("train/results.json", b'{"test_accuracy": 0.9, "random_cells": {"test_accuracies": []}}'),
        (
            "train/results.json",
            b'{"test_accuracy": 0.9, "random_cells": {"test_accuracies": [0.9]}}',
        ),
    ],
)
def test_damaged_files_are_named(tmp_path, name, content):
    run = make_search(tmp_path / "run", done=1)
    make_training(run.path / "train", done=1)
    (run.path / name).write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(str(run.path / name))):
        write_report(run)
    assert not (run.path / runs.REPORT).exists()


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ({"normal/0000": torch.zeros(3, 5)}, "has the shape (3, 5), but config.json says (5, 5)"),
        ({"other/0000": torch.zeros(5, 5)}, "is not a cell and a number of epochs"),
        ({"normal/0001": torch.zeros(5, 5)}, "tables of the normal cell are missing"),
        ({"normal/0000": torch.full((5, 5), torch.nan)}, "holds NaN"),
    ],
)
def test_alphas_that_do_not_fit_are_refused(tmp_path, tables, words):
    run = make_search(tmp_path / "run", done=1)
    run.save_tensors(runs.ALPHAS, tables)
    with pytest.raises(ValueError, match=re.escape(words)) as error:
        write_report(run)
    assert str(run.path / runs.ALPHAS) in str(error.value)


def test_not_a_run_folder(tmp_path):
    with pytest.raises(ValueError, match=r"is not a run folder"):
        write_report(runs.Run(tmp_path))
    with pytest.raises(ValueError, match=r"there is no run folder"):
        write_report(runs.Run(tmp_path / "absent"))
    assert list(Path(tmp_path).iterdir()) == []
