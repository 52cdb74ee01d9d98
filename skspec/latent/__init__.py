"""Methods that learn from spectra alone.

:class:`BetaVAE` finds the few independent numbers that tell spectra apart.
:class:`DenoisingAutoencoder` takes the noise out of spectra like those it was trained on.
"""

from skspec.latent._beta_vae import BetaVAE
from skspec.latent._denoising_autoencoder import DenoisingAutoencoder

__all__ = ["BetaVAE", "DenoisingAutoencoder"]
