"""What users' modules do that a search must follow: places shared, inputs changed, outputs nested."""
