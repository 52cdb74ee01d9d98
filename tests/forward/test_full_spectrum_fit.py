import numpy as np
import pytest
from numpy.testing import assert_allclose

from skspec import Spectra
from skspec.datasets import make_spectra
from skspec.forward import FullSpectrumFit, SpectralGP, TheCannon
from skspec.solvers.spectra.line_of_sight import LineOfSight, ln_shift


@pytest.fixture(scope="module")
def stars():
    wavelength = 5000 * np.exp(np.arange(400) * 1.5e-4)  # 45 km/s a pixel
    return make_spectra(
        460,
        wavelength=wavelength,
        resolution=1800,
        snr=100,
        random_state=1,
        label_ranges={"teff": (4500, 6800)},
    )


def raw(spectra, rng, degree=4):
    """Spectra in counts, through an unknown throughput that differs from star to star."""
    x = np.linspace(-1, 1, spectra.shape[1])
    curve = 1 + 0.3 * np.polynomial.chebyshev.chebval(
        x, rng.normal(size=(degree + 1, len(spectra))) / 3
    )
    curve = np.abs(curve) * 10 ** rng.uniform(2, 4, (len(spectra), 1))
    return spectra.replace(flux=spectra.flux * curve, ivar=spectra.ivar / curve**2)


def shifted(spectra, rv):
    sight = LineOfSight(spectra.wavelength)
    hat = sight.transform(spectra.flux) * sight.phase(ln_shift(rv) / sight.step)
    return spectra.replace(flux=sight.spectra(hat))


def test_raw_spectra_give_the_labels_of_normalised_ones(stars):
    spectra, labels = stars
    rng = np.random.default_rng(0)
    counts = raw(spectra, rng)
    model = FullSpectrumFit(continuum_degree=6, fit_rv=False).fit(counts[:400], labels[:400])
    normal = TheCannon(3, log_labels=["teff"]).fit(spectra[:400], labels[:400])
    truth = labels[400:].to_numpy()
    error, reference = (
        np.abs(m.predict(s[400:]) - truth).mean(axis=0)
        for m, s in ((model, counts), (normal, spectra))
    )
    assert np.all(error < 1.25 * reference)
    z = (model.predict(counts[400:]) - truth) / model.predict_dist(counts[400:]).std()
    assert 0.5 < np.mean(np.abs(z) < 1) < 0.85


def test_the_unit_of_the_flux_does_not_matter(stars):
    spectra, labels = stars
    model = FullSpectrumFit(continuum_degree=4).fit(spectra[:120], labels[:120])
    one = model.invert(spectra[120:150])
    bright = spectra[120:150].replace(
        flux=1e4 * spectra.flux[120:150], ivar=1e-8 * spectra.ivar[120:150]
    )
    other = model.invert(bright)
    # a pixel at the edge may fall to either side of it
    assert np.abs((other.labels - one.labels) / one.dist.std()).max() < 0.05
    assert_allclose(other.dist.std(), one.dist.std(), rtol=0.02)
    assert_allclose(other.chi2, one.chi2, rtol=0.02)
    assert_allclose(other.continuum, 1e4 * one.continuum, rtol=1e-2, atol=20)


def test_velocity_continuum_and_labels_together(stars):
    spectra, labels = stars
    rng = np.random.default_rng(3)
    model = FullSpectrumFit(continuum_degree=6, fit_rv=(-400, 400)).fit(
        raw(spectra[:400], rng), labels[:400]
    )
    rv = rng.uniform(-200, 200, 60)
    moved = raw(shifted(spectra[400:], rv), rng)
    result = model.invert(moved)
    assert result.converged.all()
    z = (result.rv - rv) / result.rv_std
    assert np.abs(z).max() < 6 and 0.5 < np.mean(np.abs(z) < 1) < 0.9
    assert np.all(np.abs(result.labels - labels[400:]).median(axis=0) < [90, 0.15, 0.09])
    fitted = model.best_fit(result)
    inner = slice(20, -20)
    pull = ((moved.flux - fitted) * np.sqrt(moved.ivar))[:, inner]
    assert 0.9 < np.std(pull) < 1.4


def test_any_forward_model_any_guess(stars):
    spectra, labels = stars
    model = FullSpectrumFit(
        SpectralGP(), continuum_degree=3, init=[[5000, 4.5, 0], [6500, 4.0, -0.5]]
    ).fit(spectra[:100], labels[:100])
    assert isinstance(model.model_, SpectralGP)
    assert model._likelihood.training.candidates.shape == (2, 3)
    error = np.abs(model.predict(spectra[400:]) - labels[400:].to_numpy())
    assert np.all(np.median(error, axis=0) < [140, 0.2, 0.13])


def test_without_wavelength_there_is_no_velocity(stars):
    spectra, labels = stars
    plain = Spectra(spectra.flux[:60], ivar=spectra.ivar[:60])
    assert FullSpectrumFit(continuum_degree=2).fit(plain, labels[:60]).invert(plain).rv is None
    with pytest.raises(ValueError, match="fit_rv.*wavelength"):
        FullSpectrumFit(fit_rv=True).fit(plain, labels[:60])


def test_the_polynomial_is_no_higher_than_the_pixels_allow(stars):
    spectra, labels = stars
    model = FullSpectrumFit(continuum_degree=10).fit(spectra[:60, :100], labels[:60])
    assert model.training_continuum_.shape == (60, 6)


def test_callers_model_and_spectra_are_left_alone(stars):
    spectra, labels = stars
    inner, before = TheCannon(1), spectra.flux[:60].copy()
    FullSpectrumFit(inner, continuum_degree=2, fit_rv=False).fit(spectra[:60], labels[:60])
    assert not hasattr(inner, "theta_") and inner.continuum_degree is None
    assert np.array_equal(spectra.flux[:60], before)


def test_clean_training_is_that_of_the_model(stars):
    spectra, labels = stars
    rng = np.random.default_rng(3)
    counts, wrong = raw(spectra[:300], rng), labels[:300].copy()
    wrong.iloc[:6, 0] += 1200
    model = FullSpectrumFit(continuum_degree=6, fit_rv=False, clean_training=4.0)
    model.fit(counts, wrong)
    assert set(range(6)) <= set(model.model_.training_outliers_)
    assert len(model.model_.training_outliers_) < 30
    own = FullSpectrumFit(TheCannon(clean_training=4.0), continuum_degree=6, fit_rv=False)
    own.fit(counts, wrong)
    assert own.model_.clean_training == 4.0
