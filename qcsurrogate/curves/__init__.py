"""Learning curves: the error on unseen molecules against the number of molecules to train on."""
