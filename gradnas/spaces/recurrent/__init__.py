"""Recurrent cells: the space, its networks, and how a supernet's cell is computed."""
