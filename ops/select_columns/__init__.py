"""Columns of two matrices, permuted, shifted and scaled: specification, numpy truth, standard operators, kernel."""
