"""Least squares in all its forms: weighted, penalised, with errors in both variables, iterated."""
