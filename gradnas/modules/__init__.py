"""What users' modules do that a search must follow: shared places, changed inputs, nested outputs."""
