"""Methods that learn from spectra alone.

:class:`DenoisingAutoencoder` takes the noise out of spectra like those it was trained on.
"""

from skspec.latent._denoising_autoencoder import DenoisingAutoencoder

__all__ = ["DenoisingAutoencoder"]
