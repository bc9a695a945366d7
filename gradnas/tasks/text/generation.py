"""Text from a trained language model, one token after the other.

Legend: T time steps, V vocabulary.
"""

from __future__ import annotations

import torch

from gradnas.data import Vocabulary
from gradnas.randomness import generator_for
from gradnas.spaces import LanguageModel

SAMPLES = 51  # stream of random numbers
# They stand for words that the model never saw: nothing to read in a sample.
UNKNOWN = ("<unk>", "\ufffd")


@torch.no_grad()
def generate(
    model: LanguageModel,
    vocabulary: Vocabulary,
    prompt: str = "",
    tokens: int = 100,
    temperature: float = 1.0,
    seed: int = 0,
) -> str:
    """The prompt, and `tokens` words (or characters) that the model goes on with.

    They are drawn from its probabilities.

    Args:
        model: in eval mode.
        prompt: read first; empty begins a new line.
        temperature: probabilities are raised to the power 1 / temperature; 0 takes the most
            probable token.
        seed: the same seed gives the same text.

    Raises:
        ValueError: a prompt with unknown words (names them), a number of tokens below 1, a negative
            temperature.
    """
    if tokens < 1:
        raise ValueError(f"tokens must be at least 1, not {tokens}")
    if not temperature >= 0.0:
        raise ValueError(f"temperature must be at least 0, not {temperature}")
    read_T = vocabulary.encode(prompt if prompt else "\n")
    device = model.decoder_bias.device
    numbers = generator_for(seed, SAMPLES)
    barred = [k for k, token in enumerate(vocabulary.tokens) if token in UNKNOWN]
    written = read_T.tolist() if prompt else []
    log_prob_TBV, hidden_BH = model(read_T.unsqueeze(1).to(device), None)
    for _ in range(tokens):
        scores_V = log_prob_TBV[-1, 0].double().cpu()
        if len(barred) < len(vocabulary):
            scores_V[barred] = -torch.inf
        if temperature == 0.0:
            token = int(scores_V.argmax())
        else:
            p_V = torch.softmax(scores_V / temperature, dim=0)
            token = int(torch.multinomial(p_V, 1, generator=numbers))
        written.append(token)
        log_prob_TBV, hidden_BH = model(torch.tensor([[token]], device=device), hidden_BH)
    return vocabulary.decode(written)
