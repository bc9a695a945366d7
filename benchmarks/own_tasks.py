"""Programs that people bring, each a task file: all the way from the command line, with a kill -9.

    python benchmarks/own_tasks.py [--only NAME ...] [--epochs N]

For every file of `tests/own_tasks`: a search; the same search killed in its middle and resumed,
whose metrics, alphas, decision and results must be the same bytes; the verdict; a training beside
a random network; evaluation, report and export. A row of a table for each, with the kind of program
that it is. A file whose packages are not installed is said to be left out.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import json
import os
import signal
import sys
import tempfile
import time
import warnings
from pathlib import Path

from gradnas import runs
from gradnas.cli import main

FOLDER = Path(__file__).resolve().parents[1] / "tests" / "own_tasks"
KINDS = {
    "blocks": "residual network: kernels, expansion, skip",
    "transformer": "transformer of torch, a mask by name",
    "hf_bert": "BERT from a configuration, batches as dictionaries",
    "hf_gpt2": "GPT-2 from a configuration",
    "hf_vit": "ViT from a configuration, outputs as an object",
    "ready_made": "ready-made CNN, activations in place",
    "time_series": "1-D CNN, one dilation sees the class",
    "u_net": "U-Net, tuples and dictionaries, a blind block",
    "tabular": "regression of rows: widths",
    "characters": "character model, LSTM or GRU, state carried",
    "graph": "graph network, keyword arguments, a generator",
    "two_tasks": "two tasks, two losses",
    "pyramid": "pyramid: lists in, a named tuple out",
    "containers": "nested, shared, tied, one module twice",
    "adam_w": "AdamW groups, warm-up, bf16",
    "lightning_module": "Lightning: module, optimiser and Trainer",
    "accelerate_loop": "Accelerate, averaged weights",
    "own_loop": "loaders and a training of one's own",
    "budget": "a budget of multiply-adds, depth",
    "stream": "a stream without a length",
    "multi_label": "multi-label, F1",
    "volumes": "3-D convolutions",
    "speech": "CTC",
}
OPTIONS = {"budget": ("--budget-macs", "150"), "adam_w": ("--precision", "bf16")}
NEEDS = {
    "hf_bert": "transformers",
    "hf_gpt2": "transformers",
    "hf_vit": "transformers",
    "lightning_module": "lightning",
    "accelerate_loop": "accelerate",
}
SAME = (runs.CONFIG, runs.METRICS, runs.ALPHAS, runs.GENOTYPE, runs.RESULTS)
KILLED_AFTER = 2  # steps


def command(*words: object) -> str:
    """What a command prints. RuntimeError with it where it fails."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = main([str(word) for word in words])
    if code != 0:
        raise RuntimeError(f"gradnas {' '.join(map(str, words))}: {code}\n{said.getvalue()}")
    return said.getvalue()


def killed(*words: object) -> bool:
    """Run a command in a fork that is killed in its middle."""
    pid = os.fork()
    if pid == 0:
        left = [KILLED_AFTER]
        plain = runs.Keeper.after_step

        def after_step(keeper: runs.Keeper) -> None:
            plain(keeper)
            left[0] -= 1
            if left[0] == 0:
                keeper.save()
                os.kill(os.getpid(), signal.SIGKILL)

        runs.Keeper.after_step = after_step  # type: ignore[method-assign]
        with contextlib.suppress(RuntimeError):
            command(*words)
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])


def tried(name: str, epochs: int, place: Path) -> str:
    """What came of one file."""
    file = FOLDER / f"{name}.py"
    whole, again = place / "whole", place / "again"
    settings = ("--epochs", epochs, "--batch-size", 8, "--device", "cpu", *OPTIONS.get(name, ()))
    command("search", file, *settings, "--out", whole)
    if not killed("search", file, *settings, "--out", again):
        return "WRONG: it ended before it was killed"
    command("resume", again, "--task", file)
    other = [part for part in SAME if (whole / part).read_bytes() != (again / part).read_bytes()]
    results = json.loads((whole / runs.RESULTS).read_text())
    verdict = results.get("verdict", {}).get("sentence")
    command("train", whole, "--task", file, "--random", 1)
    command("evaluate", whole, "--task", file)
    command("report", whole)
    said = command("export", whole, "--task", file, "-o", place / "model.pt2")
    compared = next(line for line in said.splitlines() if line.startswith("largest difference"))
    wrong = [f"other bytes in {', '.join(other)}"] if other else []
    if not verdict:
        wrong.append(f"no verdict ({results.get('no_verdict')})")
    batch = "one batch size" if "one size alone" in said else "any batch"
    outcome = f"WRONG: {', '.join(wrong)}" if wrong else "killed, resumed to the bit, verdict"
    difference = compared.partition("examples: ")[2] or compared
    return f"{outcome}; trained, exported ({batch}, {difference})"


def run() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--epochs", type=int, default=2)
    options = parser.parse_args()
    missing = {path.stem for path in FOLDER.glob("*.py")} - set(KINDS)
    assert not missing, f"say what kinds these are: {missing}"
    warnings.simplefilter("ignore")
    num_wrong = 0
    for name in options.only:
        began = time.process_time()
        needs = NEEDS.get(name)
        if needs is not None and importlib.util.find_spec(needs) is None:
            result = f"left out: {needs} is not installed"
        else:
            with tempfile.TemporaryDirectory() as place:
                try:
                    result = tried(name, options.epochs, Path(place))
                except RuntimeError as error:
                    result = f"WRONG: {error}"
        num_wrong += result.startswith("WRONG")
        seconds = time.process_time() - began
        print(f"| {KINDS[name]} | {name}.py | {result} | {seconds:.1f} s |", flush=True)
    print(f"{len(options.only)} files, {num_wrong} wrong")
    return int(num_wrong > 0)


if __name__ == "__main__":
    sys.exit(run())
