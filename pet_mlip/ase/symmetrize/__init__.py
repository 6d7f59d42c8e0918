"""Averages over orientations of whole structures, for models that are not invariant themselves."""
