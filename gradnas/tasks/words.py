"""What a report says of runs on any kind of data, by the name of its measure alone."""

from __future__ import annotations

from collections.abc import Sequence

from gradnas.pictures import plots
from gradnas.pictures.plots import Line, Panel
from gradnas.pictures.sheet import BLUE, GREEN, ORANGE, PALE
from gradnas.reports.folder import Folder, RandomCells
from gradnas.reports.parts import escaped, figure, headed, joined
from gradnas.reports.words import (
    NOTHING_YET,
    Summary,
    Tone,
    count,
    done_of,
    in_words_of,
    quoted,
    random_option,
    so_far,
    subject,
)
from gradnas.tasks.base import Words
from gradnas.tasks.measure import FEWEST_RANDOM, Measure


class MeasuredWords(Words):
    """Losses and one measure of trained networks."""

    def __init__(self, measure: Measure) -> None:
        self.measure = measure

    # -- numbers --

    def _reached(self, folder: Folder) -> float | None:
        """What the trained network reaches in its test; None before."""
        training = folder.training
        return None if training is None else training.result(f"test_{self.measure.key}")

    def _random(self, folder: Folder) -> RandomCells | None:
        training = folder.training
        if training is None:
            return None
        return training.random_cells(self.measure.key, self.measure.plural)

    # -- sentences --

    def summary(self, folder: Folder) -> Summary:
        reached = self._reached(folder)
        if reached is not None:
            return self._trained(folder, reached)
        if not folder.metrics.rows:
            return NOTHING_YET
        key = self.measure.key
        derived = folder.metrics.last(f"derived_valid_{key}")
        if derived is None:
            return Summary(f"{done_of(folder)}; nothing was tested yet.")
        return Summary(
            f"{so_far(folder)} the network derived from the supernet, with its weights, has a "
            f"{key} of {self.measure.text(derived)} on the data that train the alphas. How good "
            "the cell is once it is trained from scratch is not known yet."
        )

    def _trained(self, folder: Folder, reached: float) -> Summary:
        measure = self.measure
        sentence = f"The {subject(folder)} reaches a test {measure.key} of {measure.text(reached)}"
        random = self._random(folder)
        if random is None:
            helped = "the search helped" if folder.is_search else "the cell is a good one"
            return Summary(
                f"{sentence}. No random cells were trained in the same way, so this does not tell "
                f"whether {helped}."
            )
        many = len(random.values)
        sentence += f"; {count(many, 'random cell')} trained in the same way: "
        sentence += measure.text(random.mean)
        if many > 1:
            sentence += f" ± {measure.number(random.std)} (mean ± standard deviation)"
        compared = measure.compared(reached, random.mean, random.std, many)
        if compared not in ("better", "worse"):
            between = "," if many < FEWEST_RANDOM else ":"
            return Summary(f"{sentence}{between} {compared}.")
        tone: Tone = "good" if compared == "better" else "bad"
        return Summary(f"{sentence}: {compared} than random cells.", tone)

    def key_numbers(self, folder: Folder) -> list[tuple[str, str]]:
        measure = self.measure
        reached = self._reached(folder)
        if reached is None:
            derived = folder.metrics.last(f"derived_valid_{measure.key}")
            if derived is None:
                return []
            return [(measure.text(derived), f"{measure.key} of the derived network")]
        numbers = [(measure.text(reached), f"test {measure.key}, {subject(folder)}")]
        random = self._random(folder)
        if random is not None:
            many = len(random.values)
            spread = f" ± {measure.number(random.std)}" if many > 1 else ""
            numbers.append((f"{measure.text(random.mean)}{spread}", f"random cells, n = {many}"))
        assert folder.training is not None
        weights = folder.training.result("num_params")
        if weights is not None:
            numbers.append((f"{weights:,.0f}", "weights"))
        return numbers

    # -- pictures --

    def comparison(self, folder: Folder) -> str:
        reached = self._reached(folder)
        if reached is None:
            return ""
        random = self._random(folder)
        if random is None:
            return in_words_of(
                folder,
                "<p>No random cells were trained in the same way. They show what is reached with "
                "any cell: train with "
                f"<code>{random_option(folder)} 5</code>.</p>",
            )
        plot = plots.comparison(
            "plot-comparison",
            reached,
            random.values,
            random.mean,
            random.std,
            in_words_of(folder, subject(folder)),
            _with_unit(f"test {self.measure.key}", self.measure),
            self.measure.scale,
            in_words_of(folder, "random cells"),
        )
        way = "More" if self.measure.higher_is_better else "Less"
        text = in_words_of(
            folder,
            f"{way} is better. Every cell was trained once, with one seed: with another, each "
            "number would be another one.",
        )
        return figure(plot, escaped(text))

    def curves(self, folder: Folder) -> str:
        return joined([part for _, _, part in self.curves_of_runs(folder)])

    def curves_of_runs(self, folder: Folder) -> list[tuple[Folder, str, str]]:
        """Of the search and of the training, as far as there are: folder, what it is, HTML."""
        parts = []
        if folder.is_search:
            parts.append((folder, "search", self._curves(folder, "plot-search", "Search")))
        training = folder.training
        if training is not None:
            title = "Training from scratch" if folder.is_search else ""
            parts.append((training, "training", self._curves(training, "plot-training", title)))
        return parts

    def _curves(self, folder: Folder, name: str, title: str) -> str:
        """Loss and measure over the epochs, side by side."""
        keys = list(dict.fromkeys(("loss", self.measure.key)))  # the measure may be the loss
        return self.panels(folder, keys, name, title, [self.measure])

    def panels(
        self,
        folder: Folder,
        keys: Sequence[str],
        name: str,
        title: str,
        measures: Sequence[Measure] = (),
    ) -> str:
        """What these names stand for in the metrics, over the epochs, side by side.

        Args:
            measures: those among them of which a unit is known.
        """
        shares = {measure.key: measure for measure in measures if measure.unit == "%"}
        panels = []
        for key in keys:
            lines = [
                _line(folder, f"train_{key}", "training data", PALE),
                _line(folder, f"search_valid_{key}", "alphas’ data, in the steps", GREEN),
                _line(folder, f"valid_{key}", "held-out data", BLUE),
                _line(folder, f"derived_valid_{key}", "derived network", ORANGE),
            ]
            there = [line for line in lines if line.points]
            if there:
                label = key.capitalize()
                if key in shares:
                    label = _with_unit(label, shares[key])
                panels.append(Panel(label, there, percent=key in shares))
        if not panels:
            return ""
        about = f"{title or 'Training'}: {' and '.join(keys)} over epochs"
        return headed(title, figure(plots.curves(name, panels, about)))

    # -- how to go on --

    def commands(self, folder: Folder) -> list[tuple[str, str]]:
        if self._reached(folder) is None:
            return []
        path = quoted(folder.path)
        exported = "the trained network for other programs (or .pt2)"
        return [
            (
                f"gradnas evaluate {path}{folder.options}",
                f"test {self.measure.key} of the trained network",
            ),
            (f"gradnas export {path}{folder.options} -o model.onnx", exported),
        ]


def _with_unit(name: str, measure: Measure) -> str:
    return f"{name} ({measure.unit})" if measure.unit else name


def _line(folder: Folder, key: str, label: str, colour: str) -> Line:
    return Line(label, folder.metrics.series(key), colour)
