"""Complete settings by name."""
