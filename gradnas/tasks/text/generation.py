"""Text from a trained language model, one token after the other.

Legend: T time steps, V vocabulary.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gradnas.data import Vocabulary
from gradnas.data.text import EOS
from gradnas.randomness import generator_for
from gradnas.spaces import LanguageModel

SAMPLES = 51  # stream of random numbers
COLDEST = 1e-300  # a temperature at which the most probable token has all; its inverse is a number


@torch.no_grad()
def generate(
    model: LanguageModel,
    vocabulary: Vocabulary,
    prompt: str = "",
    tokens: int = 100,
    temperature: float = 1.0,
    seed: int = 0,
    begin: str | None = None,
) -> str:
    """The prompt, and `tokens` words (or characters) that the model goes on with.

    They are drawn from its probabilities.

    Args:
        model: in eval mode.
        prompt: read first; unknown words are the token of the vocabulary for them. Empty begins a
            new line.
        temperature: probabilities are raised to the power 1 / temperature; 0 takes the most
            probable token.
        seed: the same seed gives the same text.
        begin: the token that is read, and not written, where a prompt is empty and the vocabulary
            has no line end; by default its first one, with which the training text begins.

    Raises:
        ValueError: a prompt with unknown words and a vocabulary that has no token for them (names
            them), a number of tokens below 1, a negative or infinite temperature.
    """
    if tokens < 1:
        raise ValueError(f"tokens must be at least 1, not {tokens}")
    if not 0.0 <= temperature < math.inf:
        raise ValueError(f"temperature must be at least 0 and finite, not {temperature}")
    read_T = vocabulary.encode(prompt)
    written = read_T.tolist()
    if not written:  # also a prompt of spaces alone, where tokens are words
        read_T = vocabulary.numbers([_first(vocabulary, begin)])
    device = model.decoder_bias.device
    numbers = generator_for(seed, SAMPLES)
    # It stands for what the model never saw: nothing to read in a sample.
    barred = vocabulary.unknown if len(vocabulary) > 1 else None
    log_prob_TBV, hidden_BH = model(read_T.unsqueeze(1).to(device), None)
    for _ in range(tokens):
        scores_V = log_prob_TBV[-1, 0].double().cpu()
        if barred is not None:
            scores_V[barred] = -torch.inf
        if temperature == 0.0:
            token = int(scores_V.argmax())
        else:
            token = _drawn(scores_V, temperature, numbers)
        written.append(token)
        log_prob_TBV, hidden_BH = model(torch.tensor([[token]], device=device), hidden_BH)
    return vocabulary.decode(written)


def _first(vocabulary: Vocabulary, begin: str | None) -> str:
    """The token that a text without a prompt begins after."""
    line_end = EOS if vocabulary.level == "word" else "\n"
    if line_end in vocabulary.tokens:
        return line_end
    return vocabulary.tokens[0] if begin is None else begin


def _drawn(scores_V: Tensor, temperature: float, numbers: torch.Generator) -> int:
    """A token by its probability at this temperature."""
    # The most probable one has 0 first: far below 1, a temperature makes all scores infinite.
    scores_V = (scores_V - scores_V.max()) / max(temperature, COLDEST)
    p_V = torch.softmax(scores_V, dim=0)
    return int(torch.multinomial(p_V, 1, generator=numbers))
