"""Text, read token after token: searches and trainings of language models."""

from __future__ import annotations

from gradnas.tasks.base import Kind, Measure
from gradnas.tasks.text.settings import TextSearchConfig, TextTrainConfig
from gradnas.tasks.text.words import TextWords


class Text(Kind):
    """Text, measured by the perplexity of a language model."""

    name = "text"
    measure = Measure("perplexity", "perplexities", higher_is_better=False)
    words = TextWords()
    search_config = TextSearchConfig
    train_config = TextTrainConfig


TEXT = Text()
