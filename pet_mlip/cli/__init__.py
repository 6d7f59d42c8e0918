"""The command line, `pet-mlip`."""
