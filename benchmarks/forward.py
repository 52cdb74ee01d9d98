"""asv: forward models on APOGEE-like spectra of the emulator (smooth functions without data)."""

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.common import apogee_like
from skspec.forward import SLAM, TheCannon
from skspec.metrics import coverage, rmse

MODELS = {
    "TheCannon": TheCannon,
    "TheCannon, formal errors only": lambda: TheCannon(label_covariance=False),
    "SLAM": lambda: SLAM(1.0, 0.05, 1 / 3, n_jobs=2),
    "SLAM, formal errors only": lambda: SLAM(C=1.0, epsilon=0.05, n_jobs=2, label_covariance=False),
}


class Forward:
    """One model, n training stars, P pixels, 3 labels; one BLAS thread."""

    params = [list(MODELS), [200, 500], [1024, 7214]]
    param_names = ["model", "n", "P"]
    timeout = 600

    def setup(self, name, n, P):
        self.limits = threadpool_limits(1, user_api="blas")
        self.train, self.y, self.test, self.y_test = apogee_like(n, n_pixels=P)
        self.model = MODELS[name]()
        self.prepare()

    def prepare(self):
        pass

    def teardown(self, name, n, P):
        self.limits.restore_original_limits()


class Fit(Forward):
    def time_fit(self, name, n, P):
        self.model.fit(self.train, self.y)

    def peakmem_fit(self, name, n, P):
        self.model.fit(self.train, self.y)


class Invert(Forward):
    def prepare(self):
        self.model.fit(self.train, self.y)

    def time_invert_200_stars(self, name, n, P):
        self.model.invert(self.test)

    def time_invert_one_star(self, name, n, P):
        self.model.invert(self.test[:1])

    def peakmem_invert(self, name, n, P):
        self.model.invert(self.test)


class GridSearch:
    """SLAM's choice of hyperparameters, 12 points, on 256 pixels."""

    params = [["loo", "folds"], [200, 500]]
    param_names = ["selection", "n"]
    timeout = 600

    def setup(self, selection, n):
        self.train, self.y, *_ = apogee_like(n, n_pixels=256)
        self.model = SLAM(
            C=[2.0, 8.0],
            epsilon=[0.05, 0.1],
            gamma=[0.1, 1 / 3, 1.0],
            selection=selection,
            label_covariance=False,
        )

    def time_grid_search(self, selection, n):
        self.model.fit(self.train, self.y)


class Accuracy(Forward):
    """What the labels of 200 fresh stars are worth."""

    params = [["TheCannon", "SLAM"], [200, 500], [7214]]

    def prepare(self):
        found = self.model.fit(self.train, self.y).invert(self.test)
        self.dist, self.formal, self.truth = found.dist, found.formal_dist, np.asarray(self.y_test)

    def track_rmse_teff(self, name, n, P):
        return float(rmse(self.truth, self.dist.mean())[0])

    def track_rmse_logg(self, name, n, P):
        return float(rmse(self.truth, self.dist.mean())[1])

    def track_rmse_feh(self, name, n, P):
        return float(rmse(self.truth, self.dist.mean())[2])

    def track_coverage(self, name, n, P):
        return float(np.mean(coverage(self.truth, self.dist)))

    def track_formal_coverage(self, name, n, P):
        return float(np.mean(coverage(self.truth, self.formal)))

    track_rmse_teff.unit = "K"
    track_rmse_logg.unit = track_rmse_feh.unit = "dex"
    track_coverage.unit = track_formal_coverage.unit = "fraction within 1 sigma"
