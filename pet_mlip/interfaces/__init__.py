"""What other programs load: metatomic's and GROMACS' files, TorchSim's model, i-PI's driver."""
