import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from skspec import Spectra
from skspec.diagnostics import SyntheticGradients, cramer_rao_bound, efficiency


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
        monkeypatch.setattr("skspec.diagnostics._gradients._BATCH_VALUES", 1000)
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


C_KMS = 299792.458


class Lines:
    """Four Gaussian lines on two chips; labels are the depth of the first two and of the others."""

    label_names_in_ = ["first", "second"]

    def __init__(self, velocity=0.0, width=30.0):
        self.wavelength_ = np.concatenate(
            [np.geomspace(5000, 5020, 120), np.geomspace(5015, 5040, 150)]
        )
        self.order = np.repeat([0, 1], [120, 150])
        at = np.array([5003.0, 5009.0, 5025.0, 5032.0])
        distance = C_KMS * np.log(self.wavelength_ / at[:, None]) - velocity
        self.lines = np.exp(-0.5 * (distance / width) ** 2) * (30.0 / width)

    def predict_flux(self, labels):
        labels = np.asarray(labels)
        return 1 - labels[:, [0, 0, 1, 1]] * [1.0, 0.5, 1.0, 0.3] @ self.lines

    def flux_jacobian(self, labels):
        first, second = self.lines[0] + 0.5 * self.lines[1], self.lines[2] + 0.3 * self.lines[3]
        one = -np.stack([first, second], axis=1)
        return np.broadcast_to(one, (len(labels), *one.shape))

    def noise(self, n, snr=100.0):
        shape = (n, len(self.wavelength_))
        return Spectra(
            np.ones(shape), flux_err=1 / snr, wavelength=self.wavelength_, order=self.order
        )


def difference(step, **more):
    """Central difference of the flux of `Lines` at depths 0.4, 0.6 in one of its parameters."""
    name = next(iter(more))
    up, down = (Lines(**{name: more[name] + sign * step}) for sign in (1, -1))
    return (up.predict_flux([[0.4, 0.6]]) - down.predict_flux([[0.4, 0.6]]))[0] / (2 * step)


class TestNuisance:
    labels = np.array([[0.4, 0.6]])

    def test_columns_are_those_of_finite_differences(self):
        model = Lines()
        rv = difference(0.1, velocity=0.0)
        # d/d(sigma^2) = d/d(width) / (2 width)
        broadening = difference(0.1, width=30.0) / 60
        jacobian = model.flux_jacobian(self.labels)[0]
        columns = np.column_stack([jacobian, rv, broadening])
        found = cramer_rao_bound(model, self.labels, model.noise(1), rv=True, broadening=True)
        expected = 1e4 * columns.T @ columns
        unit = np.sqrt(np.diag(expected))
        assert_allclose(
            found.full_fisher[0] / np.outer(unit, unit), expected / np.outer(unit, unit), atol=3e-3
        )
        assert found.nuisance_names == ["rv", "broadening"]
        cov = np.linalg.inv(expected)
        assert_allclose(found.std()[0], np.sqrt(np.diag(cov))[:2], rtol=3e-3)
        assert_allclose(found.rv_std()[0], np.sqrt(cov[2, 2]), rtol=3e-3)

    def test_continuum_of_each_chip_is_projected_out(self):
        model = Lines()
        flux, jacobian = model.predict_flux(self.labels)[0], model.flux_jacobian(self.labels)[0]
        columns = []
        for chip in (0, 1):
            inside = model.order == chip
            x = model.wavelength_ - model.wavelength_[inside].mean()
            columns += [np.where(inside, flux * x**q, 0) for q in range(3)]
        basis = np.linalg.qr(np.column_stack(columns))[0]
        left = jacobian - basis @ (basis.T @ jacobian)
        found = cramer_rao_bound(model, self.labels, model.noise(1), continuum_degree=2)
        assert_allclose(found.fisher[0], 1e4 * left.T @ left, rtol=1e-9, atol=1e-6)
        assert len(found.nuisance_names) == 6
        # one polynomial over both chips takes less away
        shared = model.noise(1).replace(order=None)
        less = cramer_rao_bound(model, self.labels, shared, continuum_degree=2)
        assert (less.std() < found.std()).all()

    def test_photon_limit_of_the_velocity(self):
        """Alone, sigma_v = 1 / sqrt(sum w (df/dv)^2) (Bouchy et al. 2001)."""
        model = Lines()
        slope = difference(0.1, velocity=0.0)
        bound = cramer_rao_bound(
            model, self.labels, model.noise(1), rv=True, prior_cov=1e-12 * np.eye(2)
        )
        assert_allclose(bound.rv_std(), 0.01 / np.sqrt(slope @ slope), rtol=2e-3)

    @settings(max_examples=25, deadline=None)
    @given(
        rv=st.booleans(),
        broadening=st.booleans(),
        degree=st.none() | st.integers(0, 5),
        seed=st.integers(0, 99),
    )
    def test_nothing_unknown_ever_helps(self, rv, broadening, degree, seed):
        model, rng = Lines(), np.random.default_rng(seed)
        labels = rng.uniform(0.1, 0.6, (2, 2))
        noise = model.noise(2)
        noise = noise.replace(mask=rng.random(noise.shape) < 0.2)
        known = cramer_rao_bound(model, labels, noise)
        unknown = cramer_rao_bound(
            model, labels, noise, rv=rv, broadening=broadening, continuum_degree=degree
        )
        loss = known.fisher - unknown.fisher
        unit = np.sqrt(np.diagonal(known.fisher, axis1=1, axis2=2))
        loss /= unit[:, :, None] * unit[:, None, :]
        assert (np.linalg.eigvalsh(loss) > -1e-9).all()
        assert np.isfinite(unknown.std()).all()

    def test_a_label_that_the_continuum_imitates_has_no_bound(self):
        class Grey(Lines):
            def flux_jacobian(self, labels):
                jacobian = super().flux_jacobian(labels).copy()
                jacobian[:, :, 1] = self.predict_flux(labels)
                return jacobian

        model = Grey()
        one = model.noise(1).replace(order=None, wavelength=np.sort(model.wavelength_))
        assert np.isfinite(cramer_rao_bound(model, self.labels, one).std()).all()
        assert np.isnan(cramer_rao_bound(model, self.labels, one, continuum_degree=1).std()).all()

    def test_star_without_pixels_and_selection(self):
        model = Lines()
        noise = model.noise(3)
        mask = np.zeros(noise.shape, dtype=bool)
        mask[1] = True
        labels = np.repeat(self.labels, 3, axis=0)
        bound = cramer_rao_bound(
            model, labels, noise.replace(mask=mask), rv=True, continuum_degree=3
        )
        assert np.isnan(bound.std()[1]).all() and np.isnan(bound.rv_std()[1])
        assert_allclose(bound[[0, 2]].rv_std(), bound.rv_std()[[0, 2]])

    def test_prior_adds_information(self):
        model = Lines()
        plain = cramer_rao_bound(model, self.labels, model.noise(1))
        prior = np.diag([1e-6, 1.0])
        better = cramer_rao_bound(model, self.labels, model.noise(1), prior_cov=prior)
        assert_allclose(better.fisher, plain.fisher + np.linalg.inv(prior))
        assert better.std()[0, 0] < 1e-3
        ivar = np.repeat([[1e4], [0.0]], 270, axis=1)
        dark = cramer_rao_bound(model, np.repeat(self.labels, 2, axis=0), ivar, prior_cov=prior)
        assert_allclose(dark.std()[1], [1e-3, 1.0])

    def test_bad_questions(self):
        model, noise = Lines(), Lines().noise(1)
        ask = cramer_rao_bound
        with pytest.raises(ValueError, match="held fixed"):
            ask(model, self.labels, noise).rv_std()
        with pytest.raises(ValueError, match=r"integer >= 0, got 1\.5"):
            ask(model, self.labels, noise, continuum_degree=1.5)
        with pytest.raises(ValueError, match="give the covariance of the 2 labels"):
            ask(model, self.labels, noise, prior_cov=[1.0, 2.0])
        with pytest.raises(ValueError, match="symmetric and positive definite"):
            ask(model, self.labels, noise, prior_cov=[[1.0, 2.0], [2.0, 1.0]])
        with pytest.raises(ValueError, match="Two pixels have the same wavelength"):
            same = np.r_[model.wavelength_[:120], model.wavelength_[:150]]
            ask(model, self.labels, noise.replace(order=None, wavelength=same), rv=True)
        with pytest.raises(ValueError, match="1 sets of labels for 3 spectra"):
            ask(model, self.labels, model.noise(3))
        with pytest.raises(ValueError, match="noise has 7 pixels, the model 270"):
            ask(model, self.labels, np.ones(7))
        model.label_names_in_ = ["first", "rv"]
        with pytest.raises(ValueError, match="rv is a label of this model already"):
            ask(model, self.labels, noise, rv=True)
        model.wavelength_ = None
        with pytest.raises(ValueError, match="need the wavelength"):
            ask(model, self.labels, noise.replace(wavelength=None), broadening=True)

    def test_of_the_generator(self):
        """Line positions weigh: a velocity costs more when the lines are broad."""
        wavelength = np.geomspace(5100, 5200, 400)
        slow, fast = (
            SyntheticGradients(["teff", "feh"], wavelength, fixed_labels={"logg": 4.4, "vsini": v})
            for v in (2.0, 150.0)
        )
        ivar, sun = np.full(400, 1e4), [[5772.0, 0.0]]
        bounds = [cramer_rao_bound(m, sun, ivar, rv=True).rv_std()[0] for m in (slow, fast)]
        assert 0 < bounds[0] < 0.5 * bounds[1]


# Teff, log g, [Fe/H], [Mg/Fe]: S/N, alone and with a polynomial of degree 4 on each detector chip
ANCHORS = {
    (5777, 4.44, 0.0, 0.0): (
        100,
        [11.1, 0.0115, 0.0062, 0.0060],
        [12.8, 0.0135, 0.0068, 0.0069],
        0.01,
    ),
    (4700, 4.60, 0.0, 0.0): (
        100,
        [3.7, 0.0054, 0.0021, 0.0041],
        [4.0, 0.0061, 0.0023, 0.0045],
        0.02,
    ),
    (6200, 4.20, -0.5, 0.0): (
        100,
        [15.3, 0.0139, 0.0081, 0.0077],
        [16.2, 0.0153, 0.0084, 0.0087],
        0.05,
    ),
}


@pytest.mark.slow
class TestAnchors:
    """Bounds of the public APOGEE emulator, worked out independently and rounded to two figures."""

    @pytest.mark.parametrize("star", ANCHORS)
    def test_published_emulator(self, emulator, star):
        snr, alone, with_continuum, tolerance = ANCHORS[star]
        labels = np.array([[*star, 5.0]])
        flux = emulator.predict_flux(labels)
        noise = Spectra(flux, ivar=(snr / flux) ** 2, order=emulator.chip)
        bound = cramer_rao_bound(emulator, labels, noise)
        free = cramer_rao_bound(emulator, labels, noise, continuum_degree=4)
        assert_allclose(bound.std()[0, :4], alone, rtol=tolerance)
        assert_allclose(free.std()[0, :4], with_continuum, rtol=tolerance)

    def test_scatter_limits_bright_stars(self, emulator):
        labels = np.array([[5777, 4.44, 0.0, 0.0, 5.0]])
        flux = emulator.predict_flux(labels)
        bound = cramer_rao_bound(emulator, labels, 1 / ((flux / 200) ** 2 + 0.01**2))
        assert_allclose(bound.std()[0, :4], [13, 0.013, 0.0075, 0.0073], rtol=0.05)


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
