import numpy as np
import pytest
from numpy.testing import assert_allclose

pytest.importorskip("bokeh")

from bokeh.document import Document

from skspec.explore import LatentSpace
from skspec.explore._page import Page
from skspec.explore._session import Session, steady_limit


@pytest.fixture(scope="module")
def opened(draw_toy):
    """One page for all tests: it takes a while to make."""
    return Session(Page(LatentSpace(*draw_toy()), title="toy"))


@pytest.fixture
def session(opened):
    opened.star, opened.start = None, opened.space.centre
    page = opened.page
    page.label.value, page.node.value = "", str(opened.space.nodes[0])
    page.across.value, page.up.value = (str(k) for k in opened.space.nodes[:2])
    page.colour.value, page.find.value = "teff", ""
    opened._return_to_start()
    return opened


def curve(session, name):
    return np.asarray(session.page.curves.data[name])


class TestSliders:
    def test_the_page_begins_at_the_median_star(self, session):
        page, space = session.page, session.space
        assert list(page.sliders) == space.nodes.tolist()
        assert_allclose([s.value for s in page.sliders.values()], space.centre[space.nodes])
        assert_allclose(curve(session, "decoded"), space.decode(space.centre), atol=1e-6)
        assert np.isnan(curve(session, "observed")).all()
        assert not curve(session, "difference").any()

    def test_a_slider_moves_the_spectrum(self, session):
        space = session.space
        session.page.sliders[2].value = 1.5
        moved = space.centre.copy()
        moved[2] = 1.5
        assert_allclose(curve(session, "decoded"), space.decode(moved), atol=1e-6)
        assert_allclose(
            curve(session, "difference"),
            space.decode(moved) - space.decode(space.centre),
            atol=1e-6,
        )
        assert session.page.difference.y_range.end > abs(curve(session, "difference")).max()

    def test_several_sliders_and_back(self, session):
        for node in (1, 3):
            session.page.sliders[node].value = 0.7
        assert_allclose(session.latents[[1, 3]], 0.7)
        session._return_to_start()
        assert_allclose(session.latents, session.space.centre)
        assert not curve(session, "difference").any()

    def test_a_latent_number_beyond_the_slider(self, session):
        row = int(np.argmax(session.space.latents[:, 2]))
        session.choose(row)
        slider = session.page.sliders[2]
        assert slider.end == slider.value == pytest.approx(session.space.latents[row, 2])

    def test_many_nodes_get_a_dozen_sliders(self, toy):
        from sklearn.decomposition import PCA

        page = Page(LatentSpace(PCA(20).fit(toy[1]), toy[1], threshold=0), title="toy")
        assert len(page.sliders) == 12 and len(page.across.options) == 20

    def test_drawn_once_for_many_moves(self, space, monkeypatch):
        document, waiting = Document(), []
        monkeypatch.setattr(document, "add_timeout_callback", lambda f, ms: waiting.append((f, ms)))
        session = Session.open(document, space, title="toy")
        before = curve(session, "decoded").copy()
        for value in np.linspace(0, 1, 30):
            session.page.sliders[2].value = value
        assert len(waiting) == 1 and waiting[0][1] >= 30
        assert_allclose(curve(session, "decoded"), before)
        waiting[0][0]()
        assert np.abs(curve(session, "decoded") - before).max() > 0.05
        session.page.sliders[2].value = -1
        assert len(waiting) == 2


class TestStars:
    def test_a_click_chooses_the_nearest_star(self, session):
        page, space = session.page, session.space
        x, y = space.latents[42, [2, 1]]
        session._tap(x + 0.01, y - 0.01)
        assert session.star.row == 42
        assert_allclose(curve(session, "observed"), space.star(42).observed, atol=1e-6)
        assert_allclose(curve(session, "decoded"), space.star(42).decoded, atol=1e-6)
        rows, distance = space.neighbours(42)
        assert page.table.data["row"].tolist() == rows.tolist()
        assert_allclose(page.table.data["distance"], distance)
        assert page.table.data["c0"][0] == space.columns[0].text(rows[0])
        assert_allclose(page.chosen.data["x"], [x])
        assert_allclose(page.near.data["y"], space.latents[rows, 1])
        assert "reduced χ²" in page.star.text

    def test_labels_are_no_html(self, session):
        session.choose(3)
        assert "&lt;b&gt;HD 3" in session.page.star.text and "<b>" not in session.page.star.text

    def test_names_of_labels_are_no_html(self, draw_toy):
        model, spectra, labels = draw_toy()
        space = LatentSpace(model, spectra, labels.rename(columns={"feh": "<b>"}))
        titles = [column.title for column in Page(space, title="toy").table_view.columns]
        assert titles[3:5] == ["&lt;b&gt;", "survey"]

    def test_a_click_into_the_void(self, session):
        session._tap(1e3, 1e3)
        assert session.star is None

    def test_a_neighbour_is_chosen_in_the_table(self, session):
        session.choose(5)
        wanted = int(session.page.table.data["row"][2])
        session.page.table.selected.indices = [2]
        assert session.star.row == wanted
        assert session.page.table.selected.indices == []

    def test_found_by_name_or_row(self, session):
        session.page.find.value = "<b>HD 17"
        assert session.star.row == 17
        session.page.find.value = "31"
        assert session.star.row == 31
        session.page.find.value = "Vega"
        assert session.star.row == 31 and "no star Vega" in session.page.find.placeholder

    def test_other_nodes_on_the_axes(self, session):
        session.choose(8)
        session.page.across.value = "0"
        at = session.space.latents
        assert_allclose(session.page.points.data["x"], at[:, 0], rtol=1e-6)
        assert_allclose(session.page.chosen.data["x"], [at[8, 0]])
        assert session.page.scatter.xaxis[0].axis_label == "node 0"

    def test_colours(self, session):
        page = session.page
        assert page.colour.value == "teff" and page.bar.visible
        assert np.isnan(page.points.data["value"][:5]).all()
        page.colour.value = "survey"
        assert not page.bar.visible and "one" in page.legend.text and "100" in page.legend.text
        assert set(page.points.data["value"]) == {0, 1}
        page.colour.value = ""
        assert page.legend.text == "" and len(page.mapper.palette) == 1

    def test_a_sample_of_many(self, space):
        page = Page(space, title="toy", n_points=40)
        assert len(page.points.data["x"]) == 40
        Session(page).choose(space.sample(1, seed=5)[0])  # also one that is not drawn


class TestComparison:
    def test_slope_next_to_the_node(self, session):
        page = session.page
        assert not page.comparison.visible
        page.label.value, page.node.value = "teff", "2"
        assert page.comparison.visible and "r = 1.00<" in page.verdict.text
        assert "145 stars" in page.verdict.text
        a, b = curve(session, "node"), curve(session, "label")
        assert np.corrcoef(a, b)[0, 1] > 0.9
        page.label.value = ""
        assert not page.comparison.visible and np.isnan(curve(session, "node")).all()

    def test_the_node_that_was_moved(self, session):
        session.page.sliders[3].value = 0.2
        assert session.page.node.value == "3"

    def test_why_not(self, session, monkeypatch):
        labels = session.space.labels.copy()
        labels.loc[8:, "feh"] = np.nan
        monkeypatch.setattr(session.space, "labels", labels)
        session.page.label.value = "feh"
        assert "too few" in session.page.verdict.text


class TestLongSpectra:
    def test_only_what_the_screen_can_show(self, space):
        space.wavelength = np.linspace(4000, 9000, 300_000)
        space._ascending = np.arange(300_000)
        space.decode = lambda z: np.ones((*np.shape(z)[:-1], 300_000))
        session = Session(Page(space, title="toy"))
        assert len(curve(session, "x")) == 2400
        session._resized(500)
        assert len(curve(session, "x")) == 1000
        session.page.x_range.update(start=5000, end=5010)  # zoomed: every pixel
        assert np.diff(curve(session, "x")) == pytest.approx(5000 / 299_999, rel=1e-3)
        assert len(curve(session, "x")) == pytest.approx(600, abs=3)


def test_without_stars(bare):
    session = Session(Page(bare, title="toy"))
    session.page.sliders[1].value = 2.0
    assert np.abs(curve(session, "difference")).max() > 0.1
    assert not hasattr(session.page, "scatter")


def test_limits_of_an_axis():
    assert steady_limit(np.array([-0.4, np.nan, 0.2]), 0.01) == 0.5
    assert steady_limit(np.array([np.nan]), 0.01) == pytest.approx(0.01)
    assert steady_limit(np.zeros(3), 0.012) == pytest.approx(0.015)
