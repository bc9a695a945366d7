"""Blocks of plain networks that train on C++ kernels of ours: the same function, faster."""
