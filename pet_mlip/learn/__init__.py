"""Learning on the fly: simulations find what to label, labels improve the model, until it holds.

`pet_mlip.learn.loop.learn` does all of it; processes that only label need not load what trains.
"""
