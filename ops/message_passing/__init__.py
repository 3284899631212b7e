"""Message passing between the particles of a jet: specification, numpy truth, standard operators, kernels."""
