"""asv: the embedded spectra, and reading and writing files."""

import tempfile
from pathlib import Path

from skspec.datasets import load_spectra, make_spectra, save_spectra


class MakeSpectra:
    params = [[100, 1000], [500, 2000]]
    param_names = ["n", "P"]
    timeout = 300

    def time_make_spectra(self, n, P):
        make_spectra(n, n_pixels=P, random_state=0)

    def peakmem_make_spectra(self, n, P):
        make_spectra(n, n_pixels=P, random_state=0)


class Files:
    def setup(self):
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "stars.npz"
        self.spectra, self.labels = make_spectra(300, n_pixels=2000, random_state=0)
        save_spectra(self.path, self.spectra, self.labels)

    def teardown(self):
        self.folder.cleanup()

    def time_save(self):
        save_spectra(self.path.with_name("other.npz"), self.spectra, self.labels)

    def time_load(self):
        load_spectra(self.path)
