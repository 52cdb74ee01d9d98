"""Labels in every form are the same numbers; masks, names and sentinels are honoured everywhere."""

import re

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.compose import TransformedTargetRegressor
from sklearn.metrics import r2_score

from skspec import MultivariateNormal, Spectra, metrics, predict_dist
from skspec._label_values import (
    label_names,
    label_table,
    label_values,
    refuse_sentinels,
    refuse_unknown,
)
from skspec.calibration import CalibratedRegressor, ResidualCovarianceRegressor
from skspec.datasets import make_spectra
from skspec.diagnostics import (
    calibration_report,
    compare,
    cramer_rao_bound,
    efficiency,
    error_table,
)
from skspec.forward import TheCannon
from skspec.preprocessing import LabelScaler

NAMES = ["teff", "logg", "feh"]
TRUE = np.array(
    [[5000.0, 4.5, 0.0], [np.nan, 2.5, -1.0], [6000.0, 4.0, np.nan], [4500.0, 2.0, 0.25]]
)
HIDDEN = np.where(np.isnan(TRUE), -9999.0, TRUE)  # what lies behind a mask
MASK = np.isnan(TRUE)


def frame():
    return pd.DataFrame(TRUE, columns=NAMES)


def masked():
    return np.ma.array(HIDDEN, mask=MASK)


def record():
    return frame().to_records(index=False)


def masked_record():
    out = np.ma.zeros(4, dtype=[(name, float) for name in NAMES])
    for k, name in enumerate(NAMES):
        out[name] = masked()[:, k]
    return out


def polars_frame():
    return pytest.importorskip("polars").DataFrame(frame().replace(np.nan, None).to_dict("list"))


def table(kind="Table"):
    module = pytest.importorskip("astropy.table")
    return getattr(module, kind)([masked()[:, k] for k in range(3)], names=NAMES)


FORMS = {
    "frame": frame,
    "nullable": lambda: frame().convert_dtypes(),
    "objects": lambda: frame().astype(object).where(~MASK, pd.NA),
    "masked": masked,
    "list of masked": lambda: list(masked()),
    "list": lambda: [[None if np.isnan(v) else v for v in row] for row in TRUE],
    "array": lambda: TRUE,
    "record": record,
    "masked record": masked_record,
    "mapping": lambda: {name: list(TRUE[:, k]) for k, name in enumerate(NAMES)},
    "polars": polars_frame,
    "Table": table,
    "QTable": lambda: table("QTable"),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_same_numbers(form):
    values, names = label_table(FORMS[form]())
    assert values.dtype == float
    assert_array_equal(values, TRUE)
    unnamed = form in ("masked", "list of masked", "list", "array")
    assert names == (None if unnamed else NAMES)


def one_column():
    module = pytest.importorskip("astropy.table")
    return {
        "Series": pd.Series(TRUE[:, 0], name="teff"),
        "nullable Series": pd.Series(TRUE[:, 0], name="teff").convert_dtypes(),
        "MaskedColumn": module.MaskedColumn(HIDDEN[:, 0], mask=MASK[:, 0], name="teff"),
        "Column": module.Column(TRUE[:, 0], name="teff", unit="K"),
        "polars": pytest.importorskip("polars").Series("teff", [5000, None, 6000, 4500]),
    }


@pytest.mark.parametrize("form", ["Series", "nullable Series", "MaskedColumn", "Column", "polars"])
def test_one_column(form):
    values, names = label_table(one_column()[form])
    assert_array_equal(values, TRUE[:, 0])
    assert names == ["teff"]


def test_quantities_come_in_the_usual_units():
    units = pytest.importorskip("astropy.units")
    from astropy.utils.masked import Masked

    assert_allclose(label_table([5.0, 6.0] * units.kK)[0], [5000, 6000])
    assert_allclose(label_table([-20.0, 100] * units.m / units.s)[0], [-0.02, 0.1])
    assert_allclose(label_table([26.85] * units.deg_C)[0], [300])
    assert_allclose(label_table([4.4] * units.dex(units.cm / units.s**2))[0], [4.4])
    assert_allclose(label_table([1.0, 4.6] * units.Gyr)[0], [1, 4.6])
    hidden = Masked([5.0, -9999] * units.kK, mask=[False, True])
    assert_array_equal(label_table(hidden)[0], [5000, np.nan])


def test_what_holds_no_numbers():
    for labels in (["G2V", "K0III"], pd.DataFrame({"kind": ["G2V", "K0III"]}), [1j, 2]):
        with pytest.raises(ValueError, match="must hold real numbers"):
            label_values(labels)
    with pytest.raises(ValueError, match="PARAM has shape"):
        label_values({"PARAM": np.ones((3, 2))})


# -- names -----------------------------------------------------------------------------------------


def test_names_are_text():
    assert label_names(pd.DataFrame(np.ones((2, 3)))) == ["0", "1", "2"]
    columns = pd.MultiIndex.from_tuples([("apogee", "teff"), ("apogee", "logg"), ("snr", "")])
    names = label_names(pd.DataFrame(np.ones((2, 3)), columns=columns))
    assert names == ["apogee_teff", "apogee_logg", "snr"]
    for twice in (["teff", "teff"], [1, "1"]):
        with pytest.raises(ValueError, match="Two labels have the same name"):
            label_names(pd.DataFrame(np.ones((2, 2)), columns=twice))


def test_columns_are_found_by_name():
    swapped = frame()[["feh", "teff", "logg"]]
    assert_array_equal(label_values(swapped, NAMES), TRUE)
    assert_array_equal(label_values(TRUE, NAMES), TRUE)
    assert_array_equal(label_values(swapped, ["label_0", "label_1", "label_2"]), TRUE[:, [2, 0, 1]])
    assert_array_equal(label_values(swapped.loc[3], NAMES), TRUE[3])
    assert_array_equal(label_values(frame().iloc[3], NAMES), TRUE[3])
    with pytest.raises(ValueError, match="no column feh but c_fe, which is not expected"):
        label_values(swapped.rename(columns={"feh": "c_fe"}), NAMES)
    with pytest.raises(ValueError, match="have vsini, which is not expected"):
        label_values(swapped.assign(vsini=1.0), NAMES)
    assert_array_equal(label_values(swapped.assign(vsini=1.0), NAMES, among_others=True), TRUE)


# -- sentinels -------------------------------------------------------------------------------------

RNG = np.random.default_rng(0)
COLUMNS = {
    "teff": RNG.uniform(4000, 7000, 200),
    "hot": RNG.uniform(8000, 40000, 200),
    "cool": RNG.normal(5000, 300, 200),
    "logg": RNG.uniform(0, 5, 200),
    "feh": RNG.normal(-0.3, 0.4, 200),
    "vmic": RNG.uniform(0.5, 3, 200),
    "rv": RNG.normal(0, 60, 200),
    "vsini": RNG.lognormal(2, 1, 200),
    "age": RNG.uniform(1e8, 1.3e10, 200),
}


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize("value", [-9999, -9999.99, -999, -99999, 1e20, -1e30, -32768, -2147483648])
@pytest.mark.parametrize("share", [0.005, 0.3, 0.9])
def test_sentinels_are_refused(name, value, share):
    column = COLUMNS[name].copy()
    column[: int(share * 200)] = value
    with pytest.raises(ValueError, match=f"hold {name} .*row.*missing"):
        refuse_sentinels(column[:, None], [name])
    with pytest.raises(ValueError, match="which stands for a missing value"):
        refuse_sentinels(column.astype(np.float32).astype(float))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("feh", 99.99),
        ("feh", -99.99),
        ("feh", -9.99),
        ("logg", 99.99),
        ("logg", 999),
        ("teff", 99.99),
        ("teff", -99),
        ("teff", 999),
        ("cool", 9999),
        ("teff", 1e10),
        ("rv", 9999),
        ("rv", -999),
        ("vmic", 99),
    ],
)
def test_modest_sentinels_are_refused_where_nothing_is_near(name, value):
    column = COLUMNS[name].copy()
    column[[3, 17]] = value
    with pytest.raises(ValueError, match=re.escape(f"{name} {value:g} (rows 3, 17)")):
        refuse_sentinels(column[:, None], [name])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hot", 9999),
        ("rv", -99),
        ("rv", 99),
        ("rv", 99.9),
        ("vsini", 9.99),
        ("age", 1e10),
        ("hot", 9999.9),
    ],
)
def test_real_values_are_no_sentinels(name, value):
    column = COLUMNS[name].copy()
    column[3] = value
    refuse_sentinels(column[:, None], [name])
    refuse_sentinels(np.concatenate([column, [9700.0, np.nan]]) if name == "hot" else column)


def test_few_stars():
    refuse_sentinels(np.array([[9999.0, 4.0, -1.0]]))
    refuse_sentinels(np.array([9999.0, 8000.0]))
    for column in ([-9999.0], [5000.0, -9999], [0.1, 999], [-9999.0] * 5):
        with pytest.raises(ValueError, match="stands for a missing value"):
            refuse_sentinels(np.array(column))


def test_rows_of_what_is_unknown():
    with pytest.raises(ValueError, match=r"\(teff of row 1; feh of row 2\): leave"):
        refuse_unknown(TRUE, NAMES)
    with pytest.raises(ValueError, match=r"\(rows 0, 1, 2, 3, 4 and 5 more\)"):
        refuse_unknown(np.full(10, np.nan))


# -- wherever labels come in -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def stars():
    return make_spectra(120, n_pixels=60, random_state=0)


@pytest.fixture(scope="module")
def cannon(stars):
    return TheCannon().fit(stars[0], stars[1])


def spoilt(labels, form):
    """Labels of which two are not known, behind a mask of each kind or as sentinels."""
    values, mask = labels.to_numpy(copy=True), np.zeros(labels.shape, bool)
    mask[4, 0] = mask[9, 2] = True
    values[mask] = -9999
    hidden = np.ma.array(values, mask=mask)
    if form == "masked":
        return hidden
    if form == "nullable":
        return labels.mask(mask).convert_dtypes()
    if form == "Table":
        module = pytest.importorskip("astropy.table")
        return module.Table([hidden[:, k] for k in range(3)], names=list(labels))
    return pd.DataFrame(values, columns=list(labels))


MODELS = {
    "TheCannon": TheCannon,
    "residual covariance": ResidualCovarianceRegressor,
    "calibrated": lambda: CalibratedRegressor(ResidualCovarianceRegressor()),
}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("form", ["masked", "nullable", "Table", "sentinels"])
def test_fit_names_the_rows(stars, model, form):
    sentence = "-9999" if form == "sentinels" else r"NaN .*row.* 4.*9"
    with pytest.raises(ValueError, match=sentence):
        MODELS[model]().fit(stars[0], spoilt(stars[1], form))


@pytest.mark.parametrize("form", ["record", "mapping", "polars", "Table"])
def test_fit_takes_tables(stars, cannon, form):
    spectra, labels = stars
    forms = {
        "record": lambda: labels.to_records(index=False),
        "mapping": lambda: {name: list(labels[name]) for name in labels},
        "polars": lambda: pytest.importorskip("polars").DataFrame(labels.to_dict("list")),
        "Table": lambda: pytest.importorskip("astropy.table").Table.from_pandas(labels),
    }
    model = TheCannon().fit(spectra, forms[form]())
    assert model.label_names_in_ == list(labels)
    assert_allclose(model.theta_, cannon.theta_)
    assert_allclose(model.predict_flux(forms[form]()), cannon.predict_flux(labels))


@pytest.mark.parametrize("columns", [range(3), pd.MultiIndex.from_product([["a"], [1, 2, 3]])])
def test_a_model_takes_its_own_labels(stars, cannon, columns):
    spectra, labels = stars
    named = labels.set_axis(columns, axis=1)
    model = TheCannon().fit(spectra, named)
    swapped = named.iloc[:, [2, 0, 1]]
    assert_allclose(model.predict_flux(swapped), cannon.predict_flux(labels), rtol=1e-9)
    dist = model.predict_dist(spectra)
    assert_allclose(metrics.coverage(swapped, dist), metrics.coverage(named, dist))
    assert_allclose(
        metrics.rmse(named, dist), metrics.rmse(labels, cannon.predict(spectra)), rtol=1e-6
    )


def test_duplicate_names_get_a_sentence(stars):
    twice = stars[1].set_axis(["teff", "teff", "feh"], axis=1)
    with pytest.raises(ValueError, match=r"same name \(teff\)"):
        TheCannon().fit(stars[0], twice)


POINT = ["bias", "mae", "std", "mad", "robust_std", "rmse"]
OF_DISTRIBUTIONS = ["coverage", "crps", "pit", "neg_log_likelihood", "energy_score"]


@pytest.mark.parametrize("name", POINT + OF_DISTRIBUTIONS)
def test_metrics_compare_by_name(stars, cannon, name):
    spectra, labels = stars
    dist, metric = cannon.predict_dist(spectra), getattr(metrics, name)
    swapped = labels[["feh", "teff", "logg"]]
    assert_allclose(metric(swapped, dist), metric(labels, dist))
    if name in POINT:
        predicted = pd.DataFrame(dist.mean(), columns=list(labels))
        assert_allclose(metric(swapped, predicted), metric(labels, dist))
    with pytest.raises(ValueError, match="The true labels have no column feh but alpha"):
        metric(labels.rename(columns={"feh": "alpha"}), dist)
    for form in ("masked", "Table", "sentinels"):
        with pytest.raises(ValueError, match="-9999|row.* 4.*9"):
            metric(spoilt(labels, form), dist)


@pytest.mark.parametrize("name", ["log_prob", "mahalanobis", "cdf", "pit", "crps", "energy_score"])
def test_distributions_compare_by_name(name):
    loc = np.array([[5000.0, 4.0], [6000, 3.5]])
    dist = MultivariateNormal(loc, scale=[50, 0.1], label_names=["teff", "logg"])
    labels = pd.DataFrame(loc + [30, 0.05], columns=["teff", "logg"])
    method = getattr(dist, name)
    assert_allclose(method(labels[["logg", "teff"]]), method(labels.to_numpy()))


def test_priors_compare_by_name(stars, cannon):
    spectra, labels = stars
    swapped, dist = labels[["feh", "teff", "logg"]], cannon.predict_dist(spectra[:5])
    expected = dist.with_prior(labels.mean().to_numpy(), labels.cov().to_numpy())
    found = dist.with_prior(swapped.mean(), swapped.cov())
    assert_allclose(found.mean(), expected.mean())
    assert_allclose(found.cov(), expected.cov(), rtol=1e-9, atol=1e-12)
    bounds = [
        cramer_rao_bound(cannon, labels[:5], spectra[:5], prior_cov=cov).std()
        for cov in (labels.cov().to_numpy(), swapped.cov())
    ]
    assert_allclose(*bounds)
    with pytest.raises(ValueError, match="have no column feh"):
        dist.with_prior(labels.mean(), labels.rename(columns={"feh": "c_fe"}).cov())


def test_score_compares_by_name(stars, cannon):
    spectra, labels = stars
    expected = r2_score(labels, cannon.predict(spectra))
    assert_allclose(cannon.score(spectra, labels[["feh", "teff", "logg"]]), expected)
    for form in ("masked", "Table", "sentinels"):
        with pytest.raises(ValueError, match="-9999|row.* 4.*9"):
            cannon.score(spectra, spoilt(labels, form))


def test_contains_compares_by_name(stars):
    spectra, labels = stars
    model = CalibratedRegressor(ResidualCovarianceRegressor()).fit(spectra, labels)
    inside = model.contains(spectra, labels, 0.9)
    assert 0.5 < inside.mean() <= 1
    assert_array_equal(model.contains(spectra, labels[["feh", "logg", "teff"]], 0.9), inside)
    with pytest.raises(ValueError, match="no column teff"):
        model.contains(spectra, labels.drop(columns="teff"))


def test_scaled_targets_see_sentinels(stars):
    model = TransformedTargetRegressor(TheCannon(), transformer=LabelScaler())
    with pytest.raises(ValueError, match="-9999"):
        model.fit(stars[0], spoilt(stars[1], "masked"))  # scikit-learn drops the mask


# -- masked spectra --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["numpy", "Quantity", "MaskedColumn", "list"])
def test_masked_fluxes_are_bad_pixels(stars, kind):
    spectra, labels = stars
    flux = spectra.flux.copy()
    mask = np.random.default_rng(1).random(flux.shape) < 0.02
    flux[mask] = -9999
    hidden = np.ma.array(flux, mask=mask)
    if kind == "Quantity":
        units = pytest.importorskip("astropy.units")
        from astropy.utils.masked import Masked

        hidden = Masked(flux * units.dimensionless_unscaled, mask=mask)
    elif kind == "MaskedColumn":
        hidden = pytest.importorskip("astropy.table").MaskedColumn(hidden)
    elif kind == "list":
        hidden = list(hidden)
    known = Spectra(np.where(mask, 0, flux), mask=mask)
    expected = TheCannon().fit(known, labels)
    model = TheCannon().fit(hidden, labels)
    assert_allclose(model.theta_, expected.theta_)
    assert_allclose(predict_dist(model, hidden).mean(), expected.predict(known))


# -- diagnostics and figures -----------------------------------------------------------------------


def test_diagnostics_compare_by_name(stars, cannon):
    spectra, labels = stars
    dist, swapped = cannon.predict_dist(spectra), labels[["feh", "teff", "logg"]]
    assert_allclose(error_table(swapped, dist), error_table(labels, dist))
    reports = [calibration_report(cannon, spectra, each) for each in (labels, swapped)]
    assert_allclose(reports[0].pit, reports[1].pit)
    bound, noise = cramer_rao_bound(cannon, swapped, spectra), 0 * swapped + [0.1, 50, 0.2]
    found = efficiency(swapped, dist, bound, label_noise=noise, n_bootstrap=0)
    expected = efficiency(
        labels.to_numpy(), dist.mean(), bound, label_noise=[50, 0.2, 0.1], n_bootstrap=0
    )
    assert_allclose(found.kappa, expected.kappa)


def test_figures_compare_by_name(stars, cannon):
    pytest.importorskip("matplotlib")
    from skspec.plotting import OneToOneDisplay, SigmaDisplay

    spectra, labels = stars
    swapped = labels[["feh", "teff", "logg"]]
    for display in (OneToOneDisplay, SigmaDisplay):
        shown = display.from_estimator(cannon, spectra, swapped)
        assert shown.label_names == list(labels)
        assert_allclose(shown.y_true, labels)


def test_comparison_leaves_masked_stars_out(stars):
    spectra, labels = stars
    found = compare({"cannon": TheCannon(1)}, spectra, spoilt(labels, "Table"))
    assert found.label_names == list(labels) and not {4, 9} & set(found.star)
    with pytest.raises(ValueError, match="teff -9999"):
        compare({"cannon": TheCannon(1)}, spectra, spoilt(labels, "sentinels"))
