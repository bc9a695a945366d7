"""How laws are found: atoms, growth, supernets, refits."""
