"""Settings that every test shares; fixtures live in the conftest.py of each folder."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch and tblite are loaded
os.environ.setdefault("MPLBACKEND", "Agg")

import torch
from hypothesis import settings

# Workers of pytest-xdist share the cores, and small models gain nothing from threads.
torch.set_num_threads(1)

# The same examples in every run: a failure in CI is a failure here.
settings.register_profile("pet_mlip", derandomize=True, deadline=None, max_examples=15)
settings.load_profile("pet_mlip")
