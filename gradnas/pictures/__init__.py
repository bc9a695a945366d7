"""Pictures: cells, chains, curves and tables of mixing weights."""
