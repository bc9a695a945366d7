"""What runs on images say in the terminal."""

from __future__ import annotations

from gradnas.runs import Record
from gradnas.tasks.costs import cost_sentence
from gradnas.tasks.images.settings import SearchConfig
from gradnas.tasks.sentences import Sentences


class ImageSentences(Sentences[SearchConfig]):
    """What searches and trainings on images say of their results."""

    def of_search(self, config: SearchConfig, results: Record) -> list[str]:
        sentences = super().of_search(config, results)
        if "code" in results:
            sentences.append(f"code: {results['code']}")
        if "derived_valid_accuracy" in results:
            mixture = ""
            if "valid_accuracy" in results:
                mixture = f"mixture {self.measure.text(results['valid_accuracy'])}, "
            derived = self.measure.text(results["derived_valid_accuracy"])
            sentences.append(
                f"held-out accuracy: {mixture}derived network with its weights {derived}"
            )
        if config.cost is not None:
            sentences.append(cost_sentence(config.cost, results["cost"], "image"))
        return sentences

    def tested_on(self, results: Record) -> str:
        return f"{results['num_test_images']} held-out images"
