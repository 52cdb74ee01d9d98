"""Methods built on a kernel matrix: Gaussian processes, support vectors, local interpolation."""
