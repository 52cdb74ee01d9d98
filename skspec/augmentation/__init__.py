"""Spectra made more like those to come: noise, broadening, shifts, bad pixels."""

__all__ = []
