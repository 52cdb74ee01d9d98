import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from skspec import Spectra
from skspec.diagnostics import cramer_rao_bound, efficiency


class TestBound:
    def test_linear_model_has_the_closed_form(self, make_linear, linear_set):
        spectra, labels, jacobian = linear_set
        model = make_linear(jacobian).fit(spectra, labels)
        bound = cramer_rao_bound(model, labels[:5], spectra[:5])
        for star in range(5):
            fisher = jacobian.T @ np.diag(spectra.ivar[star]) @ jacobian
            assert_allclose(bound.fisher[star], fisher)
            assert_allclose(bound.cov()[star], np.linalg.inv(fisher), rtol=1e-9)
            assert_allclose(bound.std(conditional=True)[star], 1 / np.sqrt(np.diag(fisher)))
        assert_allclose(np.asarray(bound), bound.cov())
        assert (bound.std(conditional=True) <= bound.std()).all()
        assert bound.label_names == ["teff", "logg"]

    def test_ivar_array_equals_spectra(self, make_linear, linear_set):
        spectra, labels, jacobian = linear_set
        model = make_linear(jacobian).fit(spectra, labels)
        one = cramer_rao_bound(model, labels[:3], spectra[:3])
        two = cramer_rao_bound(model, labels[:3].to_numpy(), spectra.ivar[:3])
        assert_allclose(one.fisher, two.fisher)

    def test_bad_pixels_carry_no_information(self, make_linear, linear_set):
        spectra, labels, jacobian = linear_set
        model = make_linear(jacobian).fit(spectra, labels)
        mask = np.zeros(spectra.shape, dtype=bool)
        mask[:, ::2] = True
        bound = cramer_rao_bound(model, labels, spectra.replace(mask=mask))
        half = jacobian[1::2]
        assert_allclose(bound.fisher[0], half.T @ half * spectra.ivar[0, 0], rtol=1e-9)

    def test_star_without_pixels_has_no_bound(self, make_linear, linear_set):
        spectra, labels, jacobian = linear_set
        model = make_linear(jacobian).fit(spectra, labels)
        ivar = spectra.ivar[:2].copy()
        ivar[0] = 0
        bound = cramer_rao_bound(model, labels[:2], ivar)
        assert np.isnan(bound.std()[0]).all() and np.isfinite(bound.std()[1]).all()

    def test_without_errors_the_scatter_is_the_noise(self, make_linear, linear_set):
        spectra, labels, jacobian = linear_set
        plain = Spectra(spectra.flux)
        model = make_linear(jacobian).fit(plain, labels)
        expected = jacobian.T @ np.diag(1 / model.scatter_**2) @ jacobian
        assert_allclose(cramer_rao_bound(model, labels[:1], plain[:1]).fisher[0], expected)
        assert_allclose(cramer_rao_bound(model, labels[:1]).fisher[0], expected)
        with pytest.raises(ValueError, match="photon noise is not known"):
            cramer_rao_bound(model, labels[:1], plain[:1], noise="photon")

    def test_batches_change_nothing(self, make_linear, linear_set, monkeypatch):
        spectra, labels, jacobian = linear_set
        model = make_linear(jacobian).fit(spectra, labels)
        whole = cramer_rao_bound(model, labels, spectra).fisher
        monkeypatch.setattr("skspec.diagnostics._cramer_rao._BATCH_VALUES", 1000)
        assert_allclose(cramer_rao_bound(model, labels, spectra).fisher, whole)

    @settings(max_examples=25, deadline=None)
    @given(scale=st.floats(1e-4, 1e4))
    def test_label_units_change_only_units(self, scale):
        jacobian = np.random.default_rng(0).normal(size=(1, 30, 3))

        class Model:
            def __init__(self, unit):
                self.unit = unit

            def flux_jacobian(self, labels):
                return jacobian / self.unit

        unit = np.array([scale, 1.0, 1 / scale])
        ivar = np.full(30, 100.0)
        one = cramer_rao_bound(Model(np.ones(3)), np.zeros((1, 3)), ivar).std()
        other = cramer_rao_bound(Model(unit), np.zeros((1, 3)), ivar).std()
        assert_allclose(other, one * unit, rtol=1e-6)


def gaussian_errors(factor, n=20_000):
    rng = np.random.default_rng(3)
    root = np.array([[50.0, 0.0], [0.02, 0.05]])
    errors = factor * rng.normal(size=(n, 2)) @ root.T
    return np.zeros((n, 2)), errors, np.broadcast_to(root @ root.T, (n, 2, 2))


class TestEfficiency:
    @pytest.mark.parametrize(("factor", "expected"), [(1.0, 1.0), (2.0, 0.25), (0.5, 4.0)])
    def test_follows_the_errors(self, factor, expected):
        score = efficiency(*gaussian_errors(factor))
        assert_allclose(score.eta, expected, rtol=0.05)
        assert_allclose(score.kappa, expected**-0.5, rtol=0.03)
        assert_allclose(score.rms_z, factor, rtol=0.03)
        assert_allclose(score.eta_vec, expected, rtol=0.03)
        assert (score.eta_interval[0] <= score.eta).all()
        assert (score.eta_interval[1] >= score.eta).all()

    def test_label_noise_widens_the_yardstick(self):
        truth, errors, cov = gaussian_errors(1.0)
        noise = np.array([50.0, 0.05])
        noisy = errors + noise * np.random.default_rng(0).normal(size=errors.shape)
        score = efficiency(truth, noisy, cov, label_noise=noise)
        assert_allclose(score.eta, 1, rtol=0.05)
        assert_allclose(score.eta_vec, 1, rtol=0.05)

    def test_lost_stars_are_left_out(self):
        truth, errors, cov = gaussian_errors(1.0, n=100)
        errors[:10] = np.nan
        assert efficiency(truth, errors, cov).n_stars == 90
        with pytest.raises(ValueError, match="No star"):
            efficiency(truth, np.full_like(errors, np.nan), cov)

    def test_efficient_estimator_reaches_the_bound(self, make_linear, linear_set):
        spectra, labels, jacobian = linear_set
        model = make_linear(jacobian).fit(spectra, labels)
        bound = cramer_rao_bound(model, labels, spectra)
        score = efficiency(labels, model.predict(spectra), bound)
        assert_allclose(score.rms_z, 1, rtol=0.1)
        assert_allclose(score.eta_vec, 1, rtol=0.1)
