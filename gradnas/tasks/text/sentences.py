"""What runs on text say in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from gradnas.data import Vocabulary
from gradnas.data.text import UNKNOWN_SIGNS, Level
from gradnas.runs import Record
from gradnas.tasks.sentences import Sentences
from gradnas.tasks.text.settings import TextSearchConfig

MOST_NAMED = 3  # unknown words that a sentence lists


def percent(share: float) -> str:
    """A share of a text with two figures: `0.034%`, `4.1%`, `48%`, `100%`."""
    value = 100 * share
    return f"{value:.0f}%" if value >= 10 else f"{value:.2g}%"


def share_text(share: float, level: Level) -> str:
    """How much of a text is the sign for unknown tokens: `4.1% <unk>`, `no <unk>`."""
    sign = UNKNOWN_SIGNS[level]
    return f"{percent(share)} {sign}" if share else f"no {sign}"


def unknown_notes(vocabulary: Vocabulary, tokens: Sequence[str], what: str) -> list[str]:
    """What to say of the tokens of a text that a vocabulary lacks; nothing where it has all.

    Args:
        what: the text, in the sentence.
    """
    lacking = vocabulary.lacking(tokens)
    if not lacking:
        return []
    different = list(dict.fromkeys(lacking))
    named = ", ".join(repr(token) for token in different[:MOST_NAMED])
    if len(different) > MOST_NAMED:
        named += ", ..."
    sign = UNKNOWN_SIGNS[vocabulary.level]
    share = percent(len(lacking) / len(tokens))
    return [
        f"{len(lacking):,} of the {len(tokens):,} {vocabulary.level}s of {what} ({share}) are "
        f"unknown to the model and read as {sign}: {named}"
    ]


class TextSentences(Sentences[TextSearchConfig]):
    """What searches and trainings on text say of their results."""

    def of_search(self, config: TextSearchConfig, results: Record) -> list[str]:
        sentences = super().of_search(config, results)
        if "valid_perplexity" in results:
            reached = self.measure.text(results["valid_perplexity"])
            share = share_text(results.get("valid_unknown", 0.0), config.data.level)
            sentences.append(
                f"perplexity of the mixture on the validation text: {reached} ({share})"
            )
        return sentences

    def tested_on(self, results: Record) -> str:
        level = results["data"]["level"]
        tokens = f"{results['num_test_tokens']:,} {level}s"
        share = share_text(results["test_unknown"], level)
        valid = self.measure.text(results["valid_perplexity"])
        valid_share = share_text(results["valid_unknown"], level)
        return f"{tokens} ({share}), validation {valid} ({valid_share})"
