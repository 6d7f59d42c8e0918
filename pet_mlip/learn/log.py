"""The log of a whole learning; that of each training is in the training's folder."""

from __future__ import annotations

import logging

LOG = logging.getLogger("pet_mlip_learn")
"""Not below the package's own, whose handlers belong to the training that runs."""
