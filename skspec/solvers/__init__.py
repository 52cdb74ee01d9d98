"""Numerical kernels, sorted by kind: arrays in, arrays out, no knowledge of stars or estimators."""
