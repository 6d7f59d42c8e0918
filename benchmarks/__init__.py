"""Measurements of this package, run from a clone of the repository; README.md has the results."""
