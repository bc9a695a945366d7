"""The page of a run: what its folder says, in words and pictures."""
