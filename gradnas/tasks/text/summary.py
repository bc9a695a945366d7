"""What was read of a text, what it is known again by, what looks wrong in it, and samples.

Legend: N tokens of a split, W windows of tokens.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gradnas import runs
from gradnas.config import Json
from gradnas.data import Corpus, Vocabulary
from gradnas.data.fingerprint import Fingerprint, digest, digest_of
from gradnas.data.summary import DataSummary, Fact
from gradnas.data.text import EMBEDDED, SHARES, SPLITS, UNKNOWN_SIGNS
from gradnas.tasks.text.sentences import percent

SAMPLES = 4  # places of a split that are shown
SHOWN_TOKENS = {"word": 16, "char": 72}  # at each
WINDOW = 20  # tokens that no two texts have alike by chance
COPIED = 0.5  # share of windows from which on a split counts as a part of another
MOST_DIFFERENT = 0.5  # different words for each one, from which on they are hardly words
FEWEST_TOKENS = 1000  # below which that says nothing


# ---- what was read -------------------------------------------------------------------------------


def summary_of(corpus: Corpus) -> DataSummary:
    """Tokens of the splits, the vocabulary, and how much of the text is the sign for unknown ones.

    Shares are of the tokens of a split.
    """
    level = corpus.vocabulary.level
    tokens: dict[str, Json] = {name: len(corpus.split(name)) for name in SPLITS}
    parts = ", ".join(f"{count:,} {name}" for name, count in tokens.items())
    size = len(corpus.vocabulary)
    facts = [
        Fact("splits", "Splits", f"{level}s: {parts}", tokens),
        Fact("vocabulary", "Vocabulary", f"{size:,} different {level}s", size),
        _unknown(corpus),
    ]
    unseen = _unseen(corpus)
    if unseen is not None:
        facts.insert(2, unseen)
    if corpus.is_cut:
        first, second = (round(100 * share) for share in SHARES)
        cut = f"one text, cut into {first}%, {second}% and {100 - first - second}%"
        facts.insert(1, Fact("cut", "Cut", cut, True))
    return DataSummary(corpus.name, facts)


def as_read(corpus: Corpus, vocabulary: Vocabulary) -> Corpus:
    """A text in the words of a model; as it is where the model has none for unknown ones."""
    if vocabulary.unknown is None:
        return corpus
    number_V = vocabulary.numbers(corpus.vocabulary.tokens)
    train, valid, test = (number_V[corpus.split(name)] for name in SPLITS)
    return replace(corpus, vocabulary=vocabulary, train=train, valid=valid, test=test)


def _unknown(corpus: Corpus) -> Fact:
    """How much of each split is the sign for unknown tokens, and which became it."""
    level = corpus.vocabulary.level
    number = corpus.vocabulary.unknown
    shares: dict[str, float] = {}
    for name in SPLITS:
        numbers_N = corpus.split(name)
        shares[name] = 0.0
        if number is not None and len(numbers_N):
            shares[name] = float((numbers_N == number).double().mean())
    sign = UNKNOWN_SIGNS[level]
    if any(shares.values()):
        parts = [f"{percent(share)} of {name}" for name, share in shares.items()]
        text = f"{sign}: {', '.join(parts)}"
    else:
        text = f"no {sign}"
    if corpus.min_count > 1:
        text += f" ({level}s seen less than {corpus.min_count} times)"
    value: Json = {"sign": sign, "min_count": corpus.min_count, "shares": {**shares}}
    return Fact("unknown", "Unknown", text, value)


def _unseen(corpus: Corpus) -> Fact | None:
    """How much of the other splits the training split does not have; None where it has all."""
    level = corpus.vocabulary.level
    is_known_V = torch.zeros(len(corpus.vocabulary), dtype=torch.bool, device="cpu")
    is_known_V[corpus.train] = True
    shares: dict[str, Json] = {}
    parts = []
    for name in SPLITS[1:]:
        numbers = corpus.split(name)
        share = float((~is_known_V[numbers]).double().mean()) if len(numbers) else 0.0
        shares[name] = share
        if share:
            parts.append(f"{percent(share)} of {name}")
    if not parts:
        return None
    return Fact("unseen", "Not in train", f"{level}s not in train: {', '.join(parts)}", shares)


def fingerprint_of(corpus: Corpus) -> Fingerprint:
    """The words of the vocabulary in their order, and every split."""
    words = (token.encode("utf-8", "surrogatepass") for token in corpus.vocabulary.tokens)
    entries: dict[str, Json] = {"words of the vocabulary": digest(words)}
    for name in SPLITS:
        numbers = corpus.split(name)
        entries[f"tokens of {name}"] = len(numbers)
        entries[f"contents of {name}"] = digest_of(numbers)
    return Fingerprint(entries)


def is_of_text(source: str, path: Path) -> bool:
    """Whether a name or a path tells that it is a text: the help texts, a file, a corpus folder."""
    if source == EMBEDDED:
        return True
    if path.is_dir():
        return any((path / f"{name}.txt").is_file() for name in SPLITS)
    return path.is_file() and path.suffix.lower() in ("", ".txt", ".text", ".md", ".tokens")


# ---- what looks wrong ----------------------------------------------------------------------------


def suspicions_of(corpus: Corpus) -> list[str]:
    """Splits that stand in each other, and words that are hardly any."""
    found = []
    train_W = _windows(corpus.train)
    for name in SPLITS[1:]:
        windows_W = _windows(corpus.split(name))
        if not len(windows_W):
            continue
        share = float(np.isin(windows_W, train_W).mean())
        if share >= COPIED:
            found.append(
                f"{percent(share)} of {name} stands in train too ({WINDOW} "
                f"{corpus.vocabulary.level}s on end): its perplexity says little of other text"
            )
    total = sum(len(corpus.split(name)) for name in SPLITS)
    is_word = corpus.vocabulary.level == "word"
    if is_word and total > FEWEST_TOKENS and len(corpus.vocabulary) > MOST_DIFFERENT * total:
        found.append(
            "most words stand there once: is it a text without spaces between words, for "
            "--level char?"
        )
    return found


def _windows(numbers_N: Tensor) -> np.ndarray:
    """A hash of every run of `WINDOW` tokens, uint64 (W,)."""
    numbers = numbers_N.cpu().numpy().astype(np.uint64) + np.uint64(1)
    count = len(numbers) - WINDOW + 1
    if count < 1:
        return np.zeros(0, dtype=np.uint64)
    hashes_W = np.zeros(count, dtype=np.uint64)
    for place in range(WINDOW):  # modulo 2^64
        hashes_W = hashes_W * np.uint64(0x9E3779B97F4A7C15) + numbers[place : place + count]
    return hashes_W


# ---- samples -------------------------------------------------------------------------------------


def sample_lines(corpus: Corpus) -> list[str]:
    """Some places of every split, as tokens reach the network."""
    vocabulary = corpus.vocabulary
    lines = []
    for name in SPLITS:
        numbers = corpus.split(name).tolist()
        length = SHOWN_TOKENS[vocabulary.level]
        last = max(0, len(numbers) - length)
        for start in sorted({round(k * last / (SAMPLES - 1)) for k in range(SAMPLES)}):
            tokens = [visible(vocabulary.tokens[k]) for k in numbers[start : start + length]]
            between = " " if vocabulary.level == "word" else ""
            lines.append(f"{name:>5} {start:>9,}  {between.join(tokens)}")
    return lines


def visible(token: str) -> str:
    r"""A token as it may be shown in a terminal: a line end as `\n`, an escape as `\x1b`."""
    shown = []
    for letter in token:
        is_plain = letter.isprintable() and letter != "\\"
        shown.append(letter if is_plain else letter.encode("unicode_escape").decode("ascii"))
    return "".join(shown)


def write_sheet(corpus: Corpus, path: Path) -> Path:
    """Write the sample lines as a text file.

    Raises:
        ValueError: the path ends otherwise than in `.txt`, or cannot be written.
    """
    if path.suffix != ".txt":
        raise ValueError(f"samples of a text are written as .txt, not {path.name}")
    heading = [f"{corpus.name}: as the network reads it (split, number of the token, tokens)"]
    text = "\n".join([*heading, *sample_lines(corpus), ""])
    runs.write_atomically(path, text.encode("utf-8", "backslashreplace"))
    return path
