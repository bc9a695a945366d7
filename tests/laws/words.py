"""The words of autora-theorist-darts, the reference implementation of DARTS for equations."""

FUNCTIONS = (
    "relu",
    "logistic",
    "exp",
    "cos",
    "sin",
    "tanh",
    "reciprocal",
    "ln",
    "softplus",
    "softminus",
)
REFERENCE_WORDS = (
    *("none", "add", "subtract", "mult", "linear"),
    *(word for name in FUNCTIONS for word in (name, f"linear_{name}")),
)
