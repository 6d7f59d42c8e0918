"""How a potential is evaluated: energies, their gradient, memory and precision."""
