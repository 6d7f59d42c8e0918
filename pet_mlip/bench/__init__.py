"""`pet-mlip bench`: time, memory and accuracy of this package and of its peers, side by side.

`pet_mlip.bench.suite.run` measures, `pet_mlip.bench.report` and `pet_mlip.bench.plot` show.
"""
