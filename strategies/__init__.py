"""Flower strategies, one method a file; `method.methods()` gives those that are installed."""
