"""Methods that learn from spectra alone.

:class:`BetaVAE` finds the few independent numbers that tell spectra apart.
:class:`DenoisingAutoencoder` takes the noise out of spectra like those it was trained on.
:func:`informative_nodes` says which latent numbers are used.
"""

from skspec.latent._beta_vae import BetaVAE
from skspec.latent._denoising_autoencoder import DenoisingAutoencoder
from skspec.latent._nodes import informative_nodes, node_dispersion

__all__ = ["BetaVAE", "DenoisingAutoencoder", "informative_nodes", "node_dispersion"]
