"""What symmetry buys, in numbers: the algebra, a molecule and its rotation, four networks on one task."""
