"""A study: searches repeated, the best found chosen, and random search beside it; as plain data."""
