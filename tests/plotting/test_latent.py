from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from helpers import LinearVAE
from matplotlib.colors import to_rgba
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures

from skspec import Spectra
from skspec.datasets import make_spectra
from skspec.latent import (
    MutualInformation,
    beta_sweep,
    informative_nodes,
    latent_traversal,
    latent_traversals,
    node_dispersion,
)
from skspec.plotting import (
    LatentScatterDisplay,
    MutualInformationDisplay,
    NodeDispersionDisplay,
    ReconstructionDisplay,
    TraversalDisplay,
)
from skspec.preprocessing import BadPixelMasker, EchelleLayout

N_LATENT = 6


@pytest.fixture(scope="module")
def spectra():
    return make_spectra(120, wavelength=(4800, 5300), n_pixels=120, snr=200, random_state=0)[0]


@pytest.fixture(scope="module")
def labels():
    return make_spectra(120, wavelength=(4800, 5300), n_pixels=120, snr=200, random_state=0)[1]


@pytest.fixture(scope="module")
def model(spectra):
    return LinearVAE(N_LATENT, sigma=0.01).fit(spectra)


def curves(axes):
    """Lines that are neither level nor upright."""
    return [c for c in axes.lines if len(set(c.get_ydata())) > 2 and len(set(c.get_xdata())) > 1]


def texts(axes):
    return [text.get_text() for text in axes.texts]


class TestNodeDispersion:
    def test_one_model(self, model, spectra):
        display = NodeDispersionDisplay.from_estimator(model, spectra, name="stars")
        mad = np.sort(node_dispersion(model.transform(spectra))["mad"])[::-1]
        (axes,) = display.axes_
        assert_allclose(curves(axes)[0].get_ydata(), np.maximum(mad, 0.0002))
        assert axes.get_title(loc="left") == "stars: 6 latent numbers"
        assert "threshold 0.02" in texts(axes)
        display.figure_.canvas.draw()

    def test_sweep(self):
        rng = np.random.default_rng(0)
        flux = rng.normal(size=(200, 3)) @ rng.normal(size=(3, 20))
        flux += 0.1 * rng.normal(size=flux.shape)
        sweep = beta_sweep(LinearVAE(), flux, [0.01, 4.0, 9.0, 1e4], (5, 8))
        assert sweep.best_beta == 4
        display = NodeDispersionDisplay.from_sweep(sweep)
        assert len(display.axes_) == 3
        for axes, size in zip(display.axes_, (5, 8)):
            assert sum(len(line.get_xdata()) == size for line in axes.lines) == 4
        for size, line in zip((5, 8), display.axes_[2].lines[-2:]):
            assert_array_equal(line.get_xdata(), sweep.betas)
            assert_array_equal(line.get_ydata(), sweep.n_informative[size])
        display.figure_.canvas.draw()

    def test_best_beta_is_marked_and_zero_has_a_place(self):
        mad = {(beta, n): np.linspace(0.7, 0, n) for beta in (0.0, 0.3, 3.0) for n in (4, 64)}
        display = NodeDispersionDisplay(mad, best_beta=0.3).plot()
        assert display.axes_[2].get_xscale() == "symlog"
        named = display.axes_[1].get_legend_handles_labels()[1]
        assert named == ["0", "0.3 (best)", "3"]
        thick = [c.get_linewidth() for c in curves(display.axes_[0])]
        assert thick[1] > thick[0] == thick[2]
        display.figure_.canvas.draw()

    def test_given_axes_and_one_beta(self):
        _, ax = plt.subplots(1, 2)
        mad = {(1.0, 4): np.ones(4), (1.0, 8): np.ones(8)}
        assert NodeDispersionDisplay(mad).plot(ax).axes_[1] is ax[1]
        with pytest.raises(ValueError, match="2 axes were given, 3 are needed"):
            NodeDispersionDisplay(mad | {(2.0, 4): np.ones(4)}).plot(ax)


class TestLatentScatter:
    def test_pairs_and_correlations(self, model, spectra, labels):
        display = LatentScatterDisplay.from_estimator(
            model, spectra, labels["teff"], nodes=[0, 2, 1], name="stars"
        )
        assert len(display.axes_) == 3
        latents = model.transform(spectra)
        dots = display.axes_[1].collections[0].get_offsets()  # row of node 1, column of node 0
        assert_allclose(np.sort(dots[:, 0]), np.sort(latents[:, 0]))
        assert_allclose(np.sort(dots[:, 1]), np.sort(latents[:, 1]))
        rho = pd.DataFrame(latents).corr("spearman").loc[1, 0]
        assert texts(display.axes_[1]) == [f"ρ = {rho:.2f}".replace("-", "−")]
        assert display.axes_[1].get_xlabel() == "node 0" and display.label == "teff"
        assert display.axes_[1].get_ylabel() == "node 1" and not display.axes_[0].get_xlabel()
        display.figure_.canvas.draw()

    def test_colours_follow_the_label(self):
        latents = np.random.default_rng(0).normal(size=(50, 2))
        by = np.where(np.arange(50) < 10, np.nan, np.arange(50.0))
        (axes,) = LatentScatterDisplay.from_latents(latents, by, nodes=[0, 1]).axes_
        dots = axes.collections[0]
        order = [np.flatnonzero(latents[:, 0] == x)[0] for x in dots.get_offsets()[:, 0]]
        assert set(order[:10]) == set(range(10))  # the unknown below
        unknown = np.array(to_rgba("#c9ced4", 0.8))
        assert_allclose(dots.get_facecolors()[:10], np.tile(unknown, (10, 1)))
        green = dots.get_facecolors()[10:, 1][np.argsort(order[10:])]
        assert np.all(np.diff(green) >= 0)  # of viridis

    def test_classes_have_a_legend(self):
        latents = np.random.default_rng(0).normal(size=(60, 3))
        by = pd.Categorical(["K", "G", "M"] * 19 + [None] * 3, categories=list("OBAFGKM"))
        display = LatentScatterDisplay.from_latents(latents, by, nodes=range(3), label="type")
        (legend,) = [a.get_legend() for a in display.figure_.axes if a.get_legend()]
        assert [t.get_text() for t in legend.get_texts()] == ["G", "K", "M", "other"]
        assert legend.get_title().get_text() == "type"
        display.figure_.canvas.draw()

    def test_many_classes_and_booleans(self):
        latents = np.random.default_rng(0).normal(size=(200, 2))
        many = [str(int(x)) for x in np.sqrt(np.arange(200))]
        display = LatentScatterDisplay.from_latents(latents, many, nodes=[0, 1])
        legend = display.axes_[0].get_legend()
        assert [t.get_text() for t in legend.get_texts()] == [
            "10",
            "11",
            "12",
            "13",
            "7",
            "8",
            "9",
            "other",
        ]
        display = LatentScatterDisplay.from_latents(latents, latents[:, 0] > 0, nodes=[0, 1])
        texts = display.axes_[0].get_legend().get_texts()
        assert [t.get_text() for t in texts] == ["False", "True"]

    def test_informative_nodes_of_many(self):
        scale = np.r_[np.linspace(1, 2, 14), 1e-4]
        latents = np.random.default_rng(0).normal(size=(2000, 15)) * scale
        latents[0] = np.nan
        display = LatentScatterDisplay.from_latents(latents)
        mad = node_dispersion(latents)["mad"]
        assert display.nodes == mad.sort_values(ascending=False).index[:12].tolist()
        assert len(display.axes_) == 66 and not texts(display.axes_[0])

    def test_given_axes(self):
        _, ax = plt.subplots(1, 3)
        latents = np.random.default_rng(0).normal(size=(20, 3))
        display = LatentScatterDisplay.from_latents(latents, latents[:, 0], ax=ax)
        assert display.axes_[2] is ax[2] and ax[0].get_xlabel().startswith("node")
        display.figure_.canvas.draw()

    def test_mistakes_get_a_sentence(self):
        latents = np.random.default_rng(0).normal(size=(20, 3)) * [1, 1e-4, 1e-4]
        with pytest.raises(ValueError, match=r"at least two nodes, not \[0\]"):
            LatentScatterDisplay.from_latents(latents)
        with pytest.raises(ValueError, match="one value for each of the 20 stars"):
            LatentScatterDisplay.from_latents(latents, [1, 2], nodes=[0, 1])


def information(values, null):
    names = ["teff", "rv", "a", "b", "c", "d"][: np.shape(values)[1]]
    mi = pd.DataFrame(values, columns=names).rename_axis("node")
    null = pd.DataFrame(np.broadcast_to(null, mi.shape), mi.index, mi.columns)
    return MutualInformation(mi, 0 * mi, null, 0 * mi, pd.Series(9, index=names))


class TestMutualInformation:
    def test_significant_cells_are_framed(self):
        found = information([[1.0, 0.01], [0.01, 0.02], [0.3, 0.5], [-0.01, 0.0]], null=0.1)
        display = MutualInformationDisplay.from_information(found)
        (axes,) = display.axes_
        assert display.nodes == [0, 2]
        frames = [p.get_center() for p in axes.patches]
        assert_allclose(frames, [[0, 0], [0, 1], [1, 1]])
        assert texts(axes) == ["1.00", "0.01", "0.30", "0.50"]
        assert_allclose(axes.images[0].get_array(), [[1, 0], [0.3, 1]])
        assert [t.get_text() for t in axes.get_yticklabels()] == ["0", "2"]
        assert [t.get_text() for t in axes.get_xticklabels()] == [r"$T_\mathrm{eff}$", "RV"]
        display.figure_.canvas.draw()

    def test_nothing_known_or_not_measured(self):
        found = information([[0.01, np.nan], [-0.01, np.nan]], null=0.1)
        display = MutualInformationDisplay.from_information(found, name="noise")
        assert display.nodes == [0, 1] and not display.axes_[0].patches
        assert texts(display.axes_[0]) == ["0.01", "–", "0.00", "–"]

    def test_chosen_nodes_and_the_best_of_many(self):
        values = np.linspace(1, 2, 60 * 6).reshape(60, 6)
        found = information(values, null=0.1)
        assert MutualInformationDisplay.from_information(found).nodes == list(range(36, 60))
        _, ax = plt.subplots()
        display = MutualInformationDisplay.from_information(found, nodes=[5, 3], ax=ax)
        assert display.axes_[0] is ax and texts(ax)[0] == f"{values[5, 0]:.2f}"

    def test_from_estimator(self, model, spectra, labels):
        display = MutualInformationDisplay.from_estimator(
            model, spectra, labels, random_state=0, n_permutations=0
        )
        assert display.nodes == np.flatnonzero(informative_nodes(model.transform(spectra))).tolist()
        assert float(texts(display.axes_[0])[0]) > 0.3  # the first component is temperature
        assert not display.axes_[0].patches and display.axes_[0].images[0].get_array().max() == 1


class TestTraversal:
    def test_one_node(self, model, spectra):
        found = latent_traversal(model, spectra, 0, n_values=5)
        display = TraversalDisplay.from_traversal(found)
        upper, lower = display.axes_
        for axes, expected in ((upper, found.flux), (lower, found.difference)):
            assert_allclose([c.get_ydata() for c in curves(axes)], expected)
        shades = np.array([c.get_color() for c in curves(upper)])
        assert np.all(np.diff(shades[:, 1]) > 0)
        assert texts(upper) == ["Hβ", "Mg b", "Fe I 5270"]
        assert upper.get_title(loc="left") == "node 0"
        assert lower.get_xlabel() == "wavelength [Å]"
        display.figure_.canvas.draw()

    def test_several_nodes_in_windows(self, model, spectra):
        windows = [(4840, 4880), (5150, 5200)]
        display = TraversalDisplay.from_estimator(model, spectra, [1, 0], windows=windows)
        grid = display.axes_.reshape(3, 2)
        assert [axes.get_ylabel() for axes in grid[:, 0]] == ["flux", "node 1", "node 0"]
        assert len(curves(grid[0, 0])) == 1 and len(curves(grid[1, 0])) == 9
        x = curves(grid[2, 1])[0].get_xdata()
        assert 5150 <= x.min() and x.max() <= 5200
        assert texts(grid[0, 0]) == ["Hβ"] and texts(grid[0, 1]) == ["Mg b"]
        display.figure_.canvas.draw()

    def test_all_informative_nodes(self, model, spectra):
        display = TraversalDisplay.from_estimator(model, spectra)
        assert [t.node for t in display.traversals] == list(latent_traversals(model, spectra))

    def test_air_own_lines_and_pixels(self, model, spectra):
        found = latent_traversal(model, spectra, 0, [1.0])
        air = TraversalDisplay.from_traversal(replace(found, medium="air")).axes_[0]
        at = air.texts[0].xy[0]
        assert at == pytest.approx(4861.33)
        own = TraversalDisplay.from_traversal(found, lines={"mine": 5000.0, "far": 9000.0})
        assert texts(own.axes_[0]) == ["mine"]
        plain = TraversalDisplay.from_traversal(replace(found, wavelength=None), name="one")
        assert plain.axes_[1].get_xlabel() == "pixel" and not texts(plain.axes_[0])
        plain.figure_.canvas.draw()

    def test_orders_are_not_joined_and_bad_pixels_are_gaps(self, spectra):
        layout = EchelleLayout(3, 30, wavelength_range=(4810, 5290))
        orders = layout.fit_transform(spectra)
        model = LinearVAE(4, sigma=0.01).fit(orders)
        found = latent_traversal(model, orders, 0, [0.5])
        found.flux[:, 3] = np.nan
        upper = TraversalDisplay.from_traversal(found).axes_[0]
        parts = [c for c in upper.lines if len(c.get_xdata()) == 30]
        assert len(parts) == 3 and np.isnan(parts[0].get_ydata()[3])

    def test_crowded_names_do_not_overlap(self, model):
        wavelength = np.linspace(3900, 9000, 120)
        found = latent_traversal(model, np.zeros(N_LATENT), 0, [1.0])
        display = TraversalDisplay.from_traversal(replace(found, wavelength=wavelength))
        display.figure_.canvas.draw()
        boxes = sorted((t.get_window_extent() for t in display.axes_[0].texts), key=lambda b: b.x0)
        assert len(boxes) > 12
        assert all(one.x1 <= two.x0 + 1 for one, two in zip(boxes, boxes[1:]))

    def test_mistakes_get_a_sentence(self, model, spectra):
        with pytest.raises(
            ValueError, match="No pixel lies in 9000-9100; the spectra cover 4800.0"
        ):
            TraversalDisplay.from_estimator(model, spectra, 0, windows=[(9000, 9100)])
        with pytest.raises(ValueError, match="no traversal"):
            TraversalDisplay.from_traversal([])


class TestReconstruction:
    def test_residuals_and_gaps(self, model, spectra):
        mask = np.zeros(spectra.shape, dtype=bool)
        mask[4, 50:53] = True
        masked = spectra.replace(mask=mask)
        display = ReconstructionDisplay.from_estimator(model, masked, star=4, name="one")
        decoded = model.inverse_transform(model.transform(spectra[4]))[0]
        observed, reconstructed = curves(display.axes_[0])
        assert np.isnan(observed.get_ydata()[50:53]).all()
        assert_allclose(reconstructed.get_ydata(), decoded)
        residual = curves(display.axes_[1])[0].get_ydata()
        good = ~mask[4]
        expected = (spectra.flux[4] - decoded) * np.sqrt(spectra.ivar[4])
        assert_allclose(residual[good], expected[good])
        assert np.isnan(residual[50:53]).all()
        assert display.chi2 == pytest.approx(np.mean(expected[good] ** 2))
        title = display.axes_[0].get_title(loc="left")
        assert title == f"one:  mean χ² per pixel {display.chi2:.2f}"
        display.figure_.canvas.draw()

    def test_windows(self, model, spectra):
        display = ReconstructionDisplay.from_estimator(
            model, spectra, windows=[(4840, 4880), (5150, 5200), (4900, 5000)]
        )
        assert len(display.axes_) == 8
        for k, (low, high) in enumerate(display.windows):
            for axes in display.axes_[2 + 2 * k : 4 + 2 * k]:
                x = curves(axes)[0].get_xdata()
                assert low <= x.min() and x.max() <= high
        assert texts(display.axes_[2]) == ["Hβ"]
        display.figure_.canvas.draw()

    def test_without_errors_and_wavelengths(self, model, spectra):
        _, ax = plt.subplots(2)
        pipe = make_pipeline(BadPixelMasker(), LinearVAE(sigma=0.01)).fit(spectra.flux)
        display = ReconstructionDisplay.from_estimator(pipe, spectra.flux, ax=ax)
        assert ax[1].get_ylabel() == "residual" and ax[1].get_xlabel() == "pixel"
        assert np.isnan(display.chi2) and display.axes_[0].get_title(loc="left") == ""

    def test_pixels_that_the_model_does_not_know(self, spectra):
        decoded = np.where(np.arange(120) < 10, np.nan, 1.0)
        display = ReconstructionDisplay.from_predictions(spectra[0], decoded)
        assert np.isfinite(display.chi2)
        display.figure_.canvas.draw()

    def test_mistakes_get_a_sentence(self, model, spectra):
        with pytest.raises(ValueError, match="One star and its reconstruction are needed"):
            ReconstructionDisplay.from_predictions(spectra, spectra.flux[0])
        with pytest.raises(TypeError, match="cannot decode"):
            ReconstructionDisplay.from_estimator(PolynomialFeatures(1).fit(spectra.flux), spectra)
        with pytest.raises(ValueError, match="No pixel lies in 1-2"):
            ReconstructionDisplay.from_estimator(model, spectra, windows=[(1, 2)])


def test_arrays_of_the_caller_are_not_changed(model, spectra):
    latents = model.transform(spectra)
    kept = latents.copy()
    LatentScatterDisplay.from_latents(latents, nodes=[0, 1])
    NodeDispersionDisplay.from_latents(latents)
    assert_array_equal(latents, kept)
    assert isinstance(spectra, Spectra)
