"""What other programs load: metatomic's file, TorchSim's model, i-PI's driver."""
