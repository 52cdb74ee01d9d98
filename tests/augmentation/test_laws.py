"""Laws that every augmentation keeps. A new one is a line of AUGMENTATIONS."""

import numpy as np
import pandas as pd
import pytest
from helpers import RidgeRegressor
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

from skspec import Spectra, predict_dist
from skspec.augmentation import (
    BadPixels,
    Compose,
    ContinuumJitter,
    GaussianNoise,
    InstrumentBroadening,
    OneOf,
    RadialVelocityShift,
    RotationalBroadening,
    TelluricMask,
)

WAVELENGTH = np.linspace(5000, 5060, 240)


def draw(n=12, *, seed=0, dtype=float, bad=0.02, order=None):
    """Spectra with lines, errors and bad pixels, whose flux is garbage."""
    rng = np.random.default_rng(seed)
    depth = rng.uniform(0, 0.5, (n, 20))
    centre = np.linspace(5001, 5059, 20)
    flux = 1 - depth @ np.exp(-0.5 * ((WAVELENGTH - centre[:, None]) / 0.6) ** 2)
    error = 0.002 * rng.uniform(0.5, 2, flux.shape)
    hit = rng.random(flux.shape) < bad
    flux = np.where(
        hit, rng.choice([1e6, -30.0], flux.shape), flux + error * rng.normal(size=flux.shape)
    )
    return Spectra(
        flux.astype(dtype),
        ivar=np.where(hit, 0, error**-2).astype(dtype),
        wavelength=WAVELENGTH,
        order=order,
        meta={"star_id": np.arange(n), "survey": "toy"},
    )


LABELS = pd.DataFrame(
    {"teff": np.linspace(5000, 6000, 12), "vsini": np.arange(12.0), "rv": np.linspace(-20, 20, 12)}
)
AUGMENTATIONS = {
    "GaussianNoise": GaussianNoise((20, 50)),
    "GaussianNoise observed": GaussianNoise((20, 50), observed=draw(7, seed=1)),
    "RotationalBroadening": RotationalBroadening((20, 60), epsilon=(0, 1)),
    "InstrumentBroadening": InstrumentBroadening((4000, 8000)),
    "RadialVelocityShift": RadialVelocityShift((-60, 60)),
    "TelluricMask": TelluricMask([(5010, 5020), (5031, 5032)], velocity=(-100, 100), flux=1.0),
    "BadPixels": BadPixels(0.05, 0.1, observed=draw(7, seed=2)),
    "ContinuumJitter": ContinuumJitter(0.05),
    "Compose": Compose(
        [RotationalBroadening((20, 60)), RadialVelocityShift((-30, 30), p=0.5), GaussianNoise(30)]
    ),
    "OneOf": OneOf([ContinuumJitter(), GaussianNoise(30)], probabilities=[0.3, 0.7]),
}
#: those that say for each star what they do
SIMPLE = [name for name in AUGMENTATIONS if name not in ("Compose", "OneOf")]
#: the same at no strength
ZERO = [
    GaussianNoise(1e13),
    RotationalBroadening(0.0),
    InstrumentBroadening(),
    InstrumentBroadening(5000, from_resolution=5000),
    RadialVelocityShift(0.0),
    TelluricMask(),
    BadPixels(0.0),
    ContinuumJitter(0.0),
    Compose(),
    Compose([ContinuumJitter(0.0)]),
    *(clone(a).set_params(p=0.0) for a in AUGMENTATIONS.values()),
]
every = pytest.mark.parametrize("name", AUGMENTATIONS)


def same(one, other):
    assert_array_equal(one.flux, other.flux)
    assert (one.ivar is None) == (other.ivar is None)
    if one.ivar is not None:
        assert_array_equal(one.ivar, other.ivar)


NOT_AUGMENTED = "fit_transform augments and transform does not: that is what it is for"


def failures(estimator):
    acts = getattr(estimator, "p", 1) > 0 and isinstance(estimator, (GaussianNoise, OneOf))
    checks = ["check_transformer_general", "check_transformer_data_not_an_array"]
    return dict.fromkeys(checks, NOT_AUGMENTED) if acts else {}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@parametrize_with_checks(
    [
        GaussianNoise(random_state=0),
        RotationalBroadening(0.0),
        OneOf([ContinuumJitter(), GaussianNoise()], random_state=0),
        Compose(),
    ],
    expected_failed_checks=failures,
    xfail_strict=True,
)
def test_sklearn_checks(estimator, check):
    check(estimator)


@every
def test_seeded(name):
    spectra = draw()
    augmentation = clone(AUGMENTATIONS[name])
    first, again, other = (augmentation.augment(spectra, random_state=s) for s in (1, 1, 2))
    same(first, again)
    assert not np.array_equal(first.flux, other.flux)
    same(first, augmentation.augment(spectra, random_state=np.random.RandomState(1)))
    same(first, augmentation.set_params(random_state=1).augment(spectra))
    same(first, augmentation.fit_transform(spectra))
    generator = np.random.default_rng(0)
    one, two = (augmentation.augment(spectra, random_state=generator) for _ in range(2))
    assert not np.array_equal(one.flux, two.flux)


@every
def test_the_arrays_of_the_caller_are_untouched(name):
    spectra, y = draw(), LABELS.copy()
    flux, ivar = spectra.flux.copy(), spectra.ivar.copy()
    for array in (spectra.flux, spectra.ivar):
        array.flags.writeable = False
    out, new = AUGMENTATIONS[name].augment(spectra, y, random_state=0)
    assert_array_equal(spectra.flux, flux)
    assert_array_equal(spectra.ivar, ivar)
    pd.testing.assert_frame_equal(y, LABELS)
    out.flux[:] = -1
    out.ivar[:] = -1
    assert_array_equal(spectra.flux, flux)
    assert_array_equal(spectra.ivar, ivar)
    assert list(new.columns) == list(y.columns) and new.index.equals(y.index)


@every
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_a_spectrum_keeps(name, dtype):
    order = np.repeat([3, 5], [100, 140])
    spectra = draw(dtype=dtype, order=order)
    out = AUGMENTATIONS[name].augment(spectra, random_state=0)
    assert isinstance(out, Spectra) and out.shape == spectra.shape and out.dtype == dtype
    assert_array_equal(out.wavelength, WAVELENGTH)
    assert_array_equal(out.order, order)
    assert_array_equal(out.meta["star_id"], np.arange(12))
    assert np.isfinite(out.flux).all() and (out.ivar >= 0).all()


@every
def test_garbage_in_bad_pixels_stays_there(name):
    spectra = draw()
    moves = name in ("RadialVelocityShift", "Compose")
    out = AUGMENTATIONS[name].augment(spectra, random_state=0)
    if not moves:
        assert not (out.good & ~spectra.good).any()
    other = spectra.replace(flux=np.where(spectra.good, spectra.flux, np.nan))
    again = AUGMENTATIONS[name].augment(other, random_state=0)
    assert_array_equal(out.good, again.good)
    assert_allclose(out.flux[out.good], again.flux[out.good], rtol=1e-12)
    assert 0.2 < out.flux[out.good].min() and out.flux[out.good].max() < 2


@pytest.mark.parametrize("augmentation", ZERO, ids=str)
@pytest.mark.parametrize("errors", [True, False])
def test_identity_at_zero_strength(augmentation, errors):
    spectra = draw() if errors else Spectra(draw(bad=0).flux, wavelength=WAVELENGTH)
    out, y = augmentation.augment(spectra, LABELS, random_state=0)
    assert_allclose(out.flux, spectra.flux, rtol=1e-12)
    assert_array_equal(out.good, spectra.good)
    if errors:
        assert_allclose(out.ivar, spectra.ivar, rtol=1e-12)
    pd.testing.assert_frame_equal(y, LABELS)


@pytest.mark.parametrize("name", SIMPLE)
def test_each_star_by_itself(name):
    """A batch gives what its stars give one by one, for the same draws."""
    spectra, augmentation = draw(), AUGMENTATIONS[name]
    draws = augmentation._draw(spectra, np.random.default_rng(0))
    together = augmentation._apply(spectra, draws)
    for k in range(len(spectra)):
        alone = augmentation._apply(spectra[k], {key: v[[k]] for key, v in draws.items()})
        assert_allclose(alone.flux[0], together.flux[k], rtol=1e-10)
        assert_allclose(alone.ivar[0], together.ivar[k], rtol=1e-8)


@every
def test_a_fraction_of_the_stars(name):
    spectra = draw(400, bad=0)
    out = clone(AUGMENTATIONS[name]).set_params(p=0.3).augment(spectra, random_state=0)
    changed = (out.flux != spectra.flux).any(axis=1) | (
        (out.ivar != spectra.ivar) & out.good.any(axis=0)
    ).any(axis=1)
    assert 0.2 < changed.mean() < 0.4


@every
def test_in_a_pipeline_at_fit_only(name):
    spectra = draw(bad=0)
    y = LABELS["teff"].to_numpy()
    augmentation = clone(AUGMENTATIONS[name]).set_params(random_state=0)
    model = make_pipeline(augmentation, RidgeRegressor()).fit(spectra, y)
    assert model[0].transform(spectra) is spectra
    expected = RidgeRegressor().fit(augmentation.augment(spectra, random_state=0), y)
    assert_array_equal(model.predict(spectra), expected.predict(spectra))
    assert_array_equal(predict_dist(model, spectra).mean()[:, 0], expected.predict(spectra))
    assert not np.allclose(
        model.predict(spectra), RidgeRegressor().fit(spectra, y).predict(spectra)
    )


def test_a_pipeline_refuses_labels_that_it_cannot_change():
    spectra = draw()
    rotation = RotationalBroadening((0, 50))
    for augmentation in (rotation, Compose([rotation]), OneOf([GaussianNoise(), rotation])):
        with pytest.raises(ValueError, match="'vsini', and a Pipeline cannot hand"):
            make_pipeline(augmentation, RidgeRegressor()).fit(spectra, LABELS)
    with pytest.raises(ValueError, match="'rv', and a Pipeline"):
        RadialVelocityShift(label="rv").fit_transform(spectra, LABELS["rv"])
    nuisance = make_pipeline(RotationalBroadening(label=None), RidgeRegressor())
    assert nuisance.fit(spectra, LABELS).predict(spectra).shape == (12, 3)


def test_labels_in_every_form():
    spectra = draw()
    rotation = RotationalBroadening(30.0)
    expected = np.hypot(np.arange(12), 30)
    out = rotation.augment(spectra, LABELS)[1]
    assert_allclose(out["vsini"], expected)
    assert_array_equal(out[["teff", "rv"]], LABELS[["teff", "rv"]])
    series = LABELS["vsini"].set_axis([f"star {k}" for k in range(12)])
    out = rotation.augment(spectra, series)[1]
    assert out.index.equals(series.index) and out.name == "vsini"
    assert_allclose(out, expected)
    broad = LABELS.rename(columns={"vsini": "broad"})
    assert rotation.augment(spectra, broad)[1] is broad
    by_name = clone(rotation).set_params(label="broad").augment(spectra, broad)[1]
    assert_allclose(by_name["broad"], expected)
    by_number = clone(rotation).set_params(label=1)
    for y in (LABELS.to_numpy(), LABELS):
        out = np.asarray(by_number.augment(spectra, y)[1])
        assert_allclose(out[:, 1], expected)
        assert_array_equal(out[:, [0, 2]], LABELS.to_numpy()[:, [0, 2]])
    assert rotation.augment(spectra, LABELS.to_numpy())[1][3, 1] == 3.0
    for vector in (np.arange(12), list(range(12))):
        out = clone(rotation).set_params(label=0).augment(spectra, vector)[1]
        assert_allclose(out, expected)
    assert rotation.augment(spectra, list(range(12)))[1] == list(range(12))
    numbered = pd.DataFrame(LABELS.to_numpy())  # columns 0, 1, 2
    out = by_number.augment(spectra, numbered)[1]
    assert_allclose(out[1], expected)
    assert_array_equal(numbered, LABELS)


def test_labels_of_stars_left_alone_stay():
    rotation = RotationalBroadening((20, 30), p=0.5, random_state=0)
    out, y = rotation.augment(draw(bad=0), LABELS)
    changed = y["vsini"] != LABELS["vsini"]
    assert 0 < changed.sum() < 12
    middle = slice(60, 180)
    assert_array_equal((out.flux != draw(bad=0).flux)[:, middle].any(axis=1), changed)


def test_frames_and_stars_that_do_not_fit():
    with pytest.raises(ValueError, match="12 and 5 stars"):
        GaussianNoise().augment(draw(), LABELS[:5])
    with pytest.raises(ValueError, match="cannot hold their errors"):
        GaussianNoise().set_output(transform="pandas").fit_transform(draw())
    with pytest.raises(ValueError, match="p"):
        GaussianNoise(p=2).augment(draw())


@every
def test_a_blind_star_by_itself_stays_blind(name):
    blind = draw(1).replace(ivar=0.0)
    assert not AUGMENTATIONS[name].augment(blind, random_state=0).good.any()


@pytest.mark.parametrize("empty", [Spectra(np.ones((0, 240)), wavelength=WAVELENGTH), draw()[:0]])
@every
def test_no_stars(name, empty):
    assert AUGMENTATIONS[name].augment(empty, random_state=0).shape == (0, 240)
