"""Robust means, order statistics, distances between samples, information."""
