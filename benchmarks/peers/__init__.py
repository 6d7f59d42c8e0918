"""Time, memory and accuracy of this package and of its peers, side by side.

`benchmarks.peers.suite.run` measures, `benchmarks.peers.report` and `benchmarks.peers.plot` show.
"""
