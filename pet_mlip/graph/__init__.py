"""Atoms and their neighbours, as every model reads them."""
