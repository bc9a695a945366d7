"""The discrete result of a search: frozen values that are read, written and compared."""
