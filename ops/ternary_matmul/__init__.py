"""The operator `TernaryMatMul`: specification (README), numpy truth, standard operators, C++."""
