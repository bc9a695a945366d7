"""The bilevel search over any supernet."""
