"""The network as exported models evaluate it: energies and gradient without autograd.

Every piece here has the arithmetic of its namesake in `pet_mlip.model` and its derivative written
out beside it, so that nothing but what the derivative needs is computed and kept; weights are
folded where that is exact. Training and the tests' reference use `pet_mlip.model`.
"""
