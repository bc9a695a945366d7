"""Find the law in a table with scikit-learn's tools.

    python examples/equation.py

Michaelis-Menten kinetics with an inhibitor: 60 noisy rows, a law found on 40 of them and confirmed
on 20.
"""

import argparse

import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split

import gradnas

parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
)
parser.add_argument("--effort", type=float, default=1.0, help="multiplies the budget of the search")
parser.add_argument(
    "--plot", help="write data against law and the Pareto front to this SVG, PNG or PDF file"
)
arguments = parser.parse_args()

random = np.random.default_rng(0)
table = pd.DataFrame(
    {"substrate": random.uniform(0.1, 5.0, 60), "inhibitor": random.uniform(0.0, 4.0, 60)}
)
rate = 2.0 * table.substrate / (0.5 + table.substrate + 0.4 * table.inhibitor)
rate = (rate + 0.01 * random.standard_normal(60)).rename("rate")

x_train, x_test, y_train, y_test = train_test_split(table, rate, test_size=20, random_state=0)
estimator = gradnas.EquationRegressor(effort=arguments.effort, progress=True).fit(x_train, y_train)

print(
    estimator.pareto_[["complexity", "train_error", "valid_error", "chosen"]].to_string(
        float_format="{:.3g}".format
    )
)
print()
print(estimator.text())
print(f"R2 on {len(x_test)} new rows: {estimator.score(x_test, y_test):.4f}")
print(estimator.stability_)
print()
print(estimator.to_python())
if arguments.plot:
    print(estimator.plot(x_test, y_test, path=arguments.plot))
