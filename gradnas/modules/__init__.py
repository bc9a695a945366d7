"""What users' modules do that a search follows: shared places, changed inputs, nested outputs."""
