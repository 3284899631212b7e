"""The operator `MonotoneSpline`: specification (README), numpy truth, standard operators, C++."""
