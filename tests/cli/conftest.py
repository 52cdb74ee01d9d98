import matplotlib
import numpy as np
import pytest

matplotlib.use("Agg")

from skspec.datasets import make_spectra, save_spectra  # noqa: E402


@pytest.fixture(autouse=True)
def in_tmp(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """A file of 60 stars, two spectra each, ten of them without labels."""
    spectra, labels = make_spectra(60, n_pixels=120, snr=80, random_state=0)
    rows = np.repeat(np.arange(60), 2)
    table = labels.iloc[rows].reset_index(drop=True)
    table.iloc[:20] = np.nan
    path = tmp_path_factory.mktemp("library") / "library.npz"
    spectra = spectra[rows]
    spectra.meta = {"star_id": np.array([f"HD {k}" for k in rows])}
    save_spectra(path, spectra, table)
    return path
