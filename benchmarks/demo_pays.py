"""Does the search of `make demo` pay? Its commands with several seeds, beside random networks.

    python benchmarks/demo_pays.py [--seeds 5] [--first 0] [--file examples/scattered_digits.py]

For each seed: the accuracy of the searched network on the test images, the mean and the standard
deviation of five random networks of the same space that were trained in the same way, how many of
those standard deviations lie between, and CPU seconds of the search and of the six trainings.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SEARCH = ["--epochs", "12", "--alpha-lr", "0.01"]
TRAINING = ["--epochs", "15", "--random", "5"]


def run(words: list[str]) -> float:
    """A command of gradnas; the CPU seconds that it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run(
        [sys.executable, "-m", "gradnas", *words],
        env=environment,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--file", type=Path, default=ROOT / "examples" / "scattered_digits.py")
    arguments = parser.parse_args()
    distances = []
    for seed in range(arguments.first, arguments.first + arguments.seeds):
        with tempfile.TemporaryDirectory() as folder:
            found = Path(folder) / "run"
            task = str(arguments.file)
            searched = run(["search", task, *SEARCH, "--seed", str(seed), "--out", str(found)])
            train = ["train", str(found), "--task", task, *TRAINING, "--seed", str(seed)]
            trained = run(train)
            results = json.loads((found / "train" / "results.json").read_text(encoding="utf-8"))
            choices = json.loads((found / "genotype.json").read_text(encoding="utf-8"))
        accuracy, random = results["test_accuracy"], results["random_cells"]["test_accuracies"]
        mean, sd = statistics.mean(random), statistics.stdev(random)
        distances.append((accuracy - mean) / sd)
        print(
            f"seed {seed}: found {accuracy:.4g}, random {mean:.4g} (sd {sd:.4g}), "
            f"{distances[-1]:+.2f} sd; CPU seconds {searched:.0f} + {trained:.0f}; "
            f"{', '.join(choices['choices'].values())}",
            flush=True,
        )
    above = sum(distance > 0 for distance in distances)
    print(f"above the mean of the random ones in {above} of {len(distances)}; ", end="")
    print(f"on average by {statistics.mean(distances):+.2f} standard deviations")


if __name__ == "__main__":
    main()
