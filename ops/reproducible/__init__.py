"""Float operators with one order of operations: specification (README), numpy truth, standard operators, C++."""
