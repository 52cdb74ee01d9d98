"""Methods that learn from spectra alone.

:class:`BetaVAE` finds the few independent numbers that tell spectra apart.
:class:`DenoisingAutoencoder` takes the noise out of spectra like those it was trained on.
:func:`informative_nodes` says which latent numbers are used, :func:`latent_mutual_information` what
they tell about labels, :func:`latent_traversal` what they do to a spectrum, and :func:`beta_sweep` how
many there should be.
"""

from skspec.latent._balance import balancing_weights
from skspec.latent._beta_sweep import BetaSweep, beta_sweep
from skspec.latent._beta_vae import BetaVAE
from skspec.latent._denoising_autoencoder import DenoisingAutoencoder
from skspec.latent._mutual_information import (
    MutualInformation,
    latent_mutual_information,
    partial_rank_correlation,
)
from skspec.latent._nodes import informative_nodes, node_dispersion
from skspec.latent._traversal import LatentTraversal, latent_traversal, latent_traversals

__all__ = [
    "BetaSweep",
    "BetaVAE",
    "DenoisingAutoencoder",
    "LatentTraversal",
    "MutualInformation",
    "balancing_weights",
    "beta_sweep",
    "informative_nodes",
    "latent_mutual_information",
    "latent_traversal",
    "latent_traversals",
    "node_dispersion",
    "partial_rank_correlation",
]
