"""Equation discovery: short closed-form laws for tables."""
