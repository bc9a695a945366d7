"""What a report says of runs on images: accuracies of classifiers."""

from __future__ import annotations

from gradnas.pictures import plots
from gradnas.reports.folder import Folder
from gradnas.reports.parts import bullets, escaped, figure, joined
from gradnas.reports.words import NOTHING_YET, Summary, in_words_of, quoted, subject
from gradnas.tasks.base import Words
from gradnas.tasks.images.curves import cost_against_accuracy, search_curves, training_curves
from gradnas.tasks.images.outcome import (
    comparison_notes,
    percent,
    random_cells,
    searching,
    trained,
    trained_numbers,
    training_summary,
)


class ImageWords(Words):
    """Accuracies of classifiers."""

    def summary(self, folder: Folder) -> Summary:
        training = folder.training
        if training is not None and training.result("test_accuracy") is not None:
            return trained(folder, training)
        if not folder.metrics.rows:
            return NOTHING_YET
        return searching(folder) if folder.is_search else training_summary(folder)

    def key_numbers(self, folder: Folder) -> list[tuple[str, str]]:
        training = folder.training
        accuracy = None if training is None else training.result("test_accuracy")
        if training is not None and accuracy is not None:
            return trained_numbers(folder, training, accuracy)
        derived = folder.metrics.last("derived_valid_accuracy")
        if derived is None:
            return []
        numbers = []
        mixture = folder.metrics.last("valid_accuracy")
        if mixture is not None:
            numbers.append((percent(mixture), "supernet, on the alphas’ images"))
        numbers.append((percent(derived), "derived network, with its weights"))
        return numbers

    def comparison(self, folder: Folder) -> str:
        training = folder.training
        accuracy = None if training is None else training.result("test_accuracy")
        if training is None or accuracy is None:
            return ""
        random = random_cells(training)
        if random is None:
            return in_words_of(
                folder,
                "<p>No random cells were trained in the same way. They show what the network "
                "reaches with any cell: train with <code>--random-cells 5</code>.</p>",
            )
        plot = plots.comparison(
            "plot-comparison",
            accuracy,
            random.values,
            random.mean,
            random.std,
            in_words_of(folder, subject(folder)),
            others=in_words_of(folder, "random cells"),
        )
        notes = comparison_notes(folder, training, random)
        return figure(plot) + bullets(escaped(in_words_of(folder, note)) for note in notes)

    def costs(self, folder: Folder) -> str:
        return cost_against_accuracy(folder)

    def curves(self, folder: Folder) -> str:
        parts = []
        if folder.is_search:
            parts.append(search_curves(folder))
        if folder.training is not None:
            title = "Training from scratch" if folder.is_search else ""
            parts.append(training_curves(folder.training, title))
        return joined(parts)

    def commands(self, folder: Folder) -> list[tuple[str, str]]:
        training = folder.training
        if training is None or "test_accuracy" not in training.results:
            return []
        path = quoted(folder.path)
        exported = "the trained network for other programs (or .pt2, .py)"
        return [
            (f"gradnas evaluate {path}", "test accuracy of the trained network"),
            (f"gradnas export {path} -o model.onnx", exported),
        ]
