"""Weights to and from other libraries: names, layouts, files."""
