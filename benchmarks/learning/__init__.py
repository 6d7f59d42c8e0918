"""How fast this package, MACE and metatrain's PET learn from the same files.

`benchmarks.learning.suite.run` trains and measures, `benchmarks.learning.report` and
`benchmarks.learning.plot` show.

Everyone trains on one core, two trainings at a time, and the budget is the same for all. What
counts towards it is chosen such that doubts go against this package:

- ours: ``training.max_time`` is the budget, by a clock of processor time. Validations and
  checkpoints are in it.
- MACE: the processor time of training steps. Validations, whose part is known from the times that
  MACE writes, come on top.
- metatrain: the same; it writes no times, and a structure of a validation is taken to cost as much
  as one of a training step, which is more than it does.

The latter two are told a number of epochs: the budget over the processor time of an epoch in a
short trial, rounded up. Imports, reading, neighbour lists before the first step, and everything
after the last one do not count for anybody.
"""
