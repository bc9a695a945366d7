"""Programs, each from a configuration to its results, for any kind of data."""
