import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skspec import Spectra
from skspec.explore import LatentSpace
from skspec.explore._latent_space import comparable
from skspec.preprocessing import ContinuumNormalizer


class TestNodes:
    def test_the_most_spread_first_and_none_that_is_unused(self, space):
        assert space.nodes.tolist() == [2, 1, 3, 0]
        assert_allclose(space.spread[space.nodes], [2, 1, 0.8, 0.5], rtol=0.25)
        assert (space.low < space.centre)[space.nodes].all()
        assert (space.centre < space.high)[space.nodes].all()

    def test_without_stars_those_that_move_the_spectrum(self, bare):
        assert sorted(bare.nodes) == [0, 1, 2, 3] and len(bare) == 0
        assert_array_equal(bare.centre, 0)
        assert bare.has_wavelength and list(bare.lines) == ["Mg b", "Fe I 5270"]

    def test_one_node_is_left_when_none_is_informative(self, toy):
        model, spectra, _ = toy
        assert len(LatentSpace(model, spectra, threshold=100).nodes) == 1

    def test_components_of_pca_without_stars(self, toy):
        pca = PCA(3).fit(toy[1])
        space = LatentSpace(pca)
        assert_allclose(space.high[space.nodes], 3 * np.sqrt(pca.explained_variance_))
        assert not space.has_wavelength


class TestStars:
    def test_fit_of_a_star(self, space):
        star = space.star(7)
        assert star.name == "<b>HD 7" and star.row == 7
        assert star.reduced_chi2 == pytest.approx(1, abs=0.4)
        assert star.rms == pytest.approx(0.01, rel=0.3)
        assert_allclose(star.decoded, star.observed, atol=0.06)

    def test_bad_pixels_are_not_counted(self, toy):
        model, spectra, labels = toy
        latents = model.transform(spectra)
        ivar = spectra.ivar.copy()
        ivar[:, :40] = 0
        flux = np.where(ivar > 0, spectra.flux, 50.0)
        space = LatentSpace(model, spectra.replace(flux=flux, ivar=ivar), labels, latents=latents)
        star = space.star(3)
        assert np.isnan(star.observed[:40]).all() and np.isfinite(star.observed[40:]).all()
        assert star.reduced_chi2 < 2 and star.rms < 0.02

    def test_without_errors_there_is_no_chi2(self, toy):
        model, spectra, _ = toy
        star = LatentSpace(model, spectra.flux).star(0)
        assert np.isnan(star.reduced_chi2) and star.rms > 0 and star.name == "star 0"

    def test_neighbours_equal_sorted_distances(self, space):
        rows, distance = space.neighbours(11, k=5)
        scaled = space.latents[:, space.nodes] / space.spread[space.nodes]
        everything = np.linalg.norm(scaled - scaled[11], axis=1)
        order = [k for k in np.argsort(everything) if k != 11][:5]
        assert rows.tolist() == order
        assert_allclose(distance, everything[order])

    def test_fewer_neighbours_than_wanted(self, toy):
        model, spectra, labels = toy
        small = LatentSpace(model, spectra[:4], labels[:4])
        assert sorted(small.neighbours(1, k=8)[0]) == [0, 2, 3]

    def test_stars_without_latents_are_left_out(self, toy):
        model, spectra, labels = toy
        latents = model.transform(spectra)
        latents[[2, 9]] = np.nan
        space = LatentSpace(model, spectra, labels, latents=latents)
        assert not {2, 9} & set(space.neighbours(0, k=len(spectra))[0])
        assert len(space.sample(1000)) == 148

    def test_sample(self, space):
        rows = space.sample(20)
        assert len(set(rows)) == 20 and (np.diff(rows) > 0).all()
        assert_array_equal(rows, space.sample(20))

    def test_spectra_are_encoded_in_batches(self, toy, monkeypatch):
        model, spectra, labels = toy
        monkeypatch.setattr("skspec.explore._latent_space.BATCH_VALUES", 7 * spectra.shape[1])
        done = []
        space = LatentSpace(model, spectra, labels, progress=done.append)
        assert_allclose(space.latents, model.transform(spectra))
        assert done == [*range(7, 150, 7), 150]

    def test_arrays_are_not_changed(self, toy):
        model, spectra, labels = toy
        flux, table = spectra.flux.copy(), labels.copy()
        space = LatentSpace(model, spectra, labels)
        space.star(1), space.gradient("teff")
        assert_array_equal(spectra.flux, flux)
        assert labels.equals(table)


class TestGradients:
    def test_response_of_a_linear_model(self, space):
        assert_allclose(space.response(space.centre, 2), space.spread[2] * space.model.basis_[2])

    @pytest.mark.parametrize(("label", "node", "scale"), [("teff", 2, 400), ("feh", 0, 0.4)])
    def test_gradient_is_that_of_its_node(self, space, label, node, scale):
        slope, n_stars = space.gradient(label)
        per_unit = slope / space.labels[label].std(ddof=0)
        assert_allclose(scale * per_unit, space.model.basis_[node], atol=0.2)
        assert n_stars == 145
        assert comparable(space.response(space.centre, node), slope)[2] > 0.9
        other = ({0, 1, 2, 3} - {node}).pop()
        assert abs(comparable(space.response(space.centre, other), slope)[2]) < 0.4

    def test_nearest_stars_only(self, space, monkeypatch):
        monkeypatch.setattr("skspec.explore._latent_space.N_NEAREST", 60)
        slope, n_stars = space.gradient("teff", near=20)
        assert n_stars == 60 and np.isfinite(slope).all()
        assert not np.allclose(slope, space.gradient("teff")[0])

    def test_too_few_labels(self, toy):
        model, spectra, labels = toy
        labels.loc[8:, "feh"] = np.nan
        space = LatentSpace(model, spectra, labels)
        with pytest.raises(ValueError, match="only 3 stars with feh: too few"):
            space.gradient("feh")
        assert space.gradient("teff")[1] == 145  # alone, so that the others are not lost

    def test_curves_at_one_scale(self):
        first, second = np.array([1.0, -2, 1, np.nan]), np.array([-30.0, 50, -20, 7])
        a, b, r = comparable(first, second)
        assert r < -0.9 and np.isnan(b[3])
        assert np.nanmean(a**2) == pytest.approx(1) and np.nanmean(b**2) == pytest.approx(1)
        assert np.nansum(a * b) > 0  # turned
        assert np.isnan(comparable(np.ones(4), second)[2])


class TestModels:
    def test_pipeline_that_cannot_be_inverted(self, toy):
        _, spectra, labels = toy
        pipeline = make_pipeline(ContinuumNormalizer(), PCA(3)).fit(spectra)
        space = LatentSpace(pipeline, spectra, labels)
        shown = pipeline[0].transform(spectra[:1])
        assert_allclose(space.star(0).observed, shown.flux[0])
        assert_allclose(space.wavelength, spectra.wavelength)
        assert_allclose(space.latents, pipeline.transform(spectra))

    def test_pipeline_that_can(self, toy):
        _, spectra, labels = toy
        space = LatentSpace(make_pipeline(StandardScaler(), PCA(3)).fit(spectra), spectra, labels)
        assert_allclose(space.star(0).observed, spectra.flux[0])
        assert_allclose(space.star(0).decoded, spectra.flux[0], atol=1)

    def test_search(self, toy):
        _, spectra, _ = toy
        search = GridSearchCV(PCA(), {"n_components": [2, 3]}, cv=2).fit(spectra.flux)
        assert LatentSpace(search, spectra).latents.shape[1] in (2, 3)

    def test_unsorted_pixels_are_drawn_in_order(self, toy):
        model, spectra, _ = toy
        model.wavelength_ = model.wavelength_[::-1]
        space = LatentSpace(model, Spectra(spectra.flux, wavelength=spectra.wavelength[::-1]))
        x, (flux,) = space.ascending(spectra.flux[0])
        assert (np.diff(x) > 0).all()
        assert_array_equal(flux, spectra.flux[0, ::-1])


class TestBadInput:
    def test_models_that_decode_nothing(self, toy):
        with pytest.raises(TypeError, match="Ridge has not both transform and inverse_transform"):
            LatentSpace(Ridge())

    def test_rows_that_do_not_match(self, toy):
        model, spectra, labels = toy
        with pytest.raises(ValueError, match="149 rows of labels for 150 spectra"):
            LatentSpace(model, spectra, labels[1:])
        with pytest.raises(ValueError, match="latents of shape"):
            LatentSpace(model, spectra, latents=np.zeros((3, 6)))
        with pytest.raises(ValueError, match="no finite latent numbers"):
            LatentSpace(model, spectra, latents=np.full((150, 6), np.nan))

    def test_latents_of_another_model(self, toy):
        model, spectra, labels = toy
        LatentSpace(model, spectra, latents=model.transform(spectra)).check_latents()
        with pytest.raises(ValueError, match="not those of this model"):
            LatentSpace(model, spectra, latents=model.transform(spectra)[::-1]).check_latents()

    def test_models_of_unknown_size(self, toy):
        class Model:
            transform = inverse_transform = None

        with pytest.raises(ValueError, match="does not say how many latent numbers"):
            LatentSpace(Model())
