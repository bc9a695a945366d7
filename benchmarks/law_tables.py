"""Laws of real tables beside linear regression and gradient boosting, on held-out folds.

    python benchmarks/law_tables.py                    all tables that can be read
    python benchmarks/law_tables.py engel diabetes     some of them
    python benchmarks/law_tables.py --folds 5 --effort 1

The tables are those of statsmodels (engel, ccard, grunfeld, star98: share of pupils above the
median by the first 12 columns), which is no dependency of gradnas, and diabetes of scikit-learn.
The law is searched again in every fold.
"""

from __future__ import annotations

import argparse
import time
import warnings

import pandas

import gradnas

NAMES = ("engel", "ccard", "grunfeld", "star98", "diabetes")
TARGETS = {"engel": "foodexp", "ccard": "AVGEXP", "grunfeld": "invest"}


def read(name: str) -> tuple[pandas.DataFrame, pandas.Series]:
    """Features and target of a table."""
    if name == "diabetes":
        from sklearn.datasets import load_diabetes

        loaded = load_diabetes(as_frame=True)
        return loaded.data, loaded.target
    import statsmodels.api

    table = getattr(statsmodels.api.datasets, name).load_pandas().data
    if name == "star98":
        target = table["NABOVE"] / (table["NABOVE"] + table["NBELOW"])
        return table.drop(columns=["NABOVE", "NBELOW"]).iloc[:, :12].astype(float), target
    if name == "grunfeld":
        table = table.drop(columns=["firm"])
    target = table.pop(TARGETS[name])
    return table.astype(float), target.astype(float)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tables", nargs="*", default=NAMES, help="their names")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--effort", type=float, default=1.0)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    for name in options.tables:
        features, target = read(name)
        began = time.process_time()
        estimator = gradnas.EquationRegressor(effort=options.effort, random_state=0)
        comparison = estimator.compare(features, target, folds=options.folds)
        seconds = time.process_time() - began
        gaps = comparison.folds["law"] - comparison.folds["linear"]
        least = f"law minus linear at least {gaps.min():.3f}"
        print(f"{name} {features.shape}: {seconds:.0f} CPU s, {least}")
        print(comparison)
        print(flush=True)


if __name__ == "__main__":
    main()
