"""Equation discovery: short closed-form laws for tables."""

from gradnas import extras

extras.need(
    "sympy", "sklearn", "pandas", "matplotlib", extra="equations", what="equation discovery"
)
