"""The page in a real browser: it answers to the mouse, says no error, and fetches nothing elsewhere."""

import os
import re
import shutil
import signal
import subprocess
import sys
from urllib.parse import urlsplit

import joblib
import numpy as np
import pytest
from sklearn.decomposition import PCA

from skspec.datasets import make_spectra, save_spectra

pytest.importorskip("bokeh")
playwright = pytest.importorskip("playwright.sync_api", reason="no playwright")

pytestmark = pytest.mark.slow

NAMES = ("chromium", "chromium-browser", "google-chrome")
BROWSER = os.environ.get("SKSPEC_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
MODEL = "Bokeh.documents[0].get_model_by_name"
#: where star k of the scatter is on the screen
PLACE = f"""(k) => {{
  const view = Bokeh.index.find_one({MODEL}("scatter")), points = {MODEL}("points").data;
  const box = view.canvas_view.el.getBoundingClientRect();
  return [box.x + view.frame.x_scale.compute(points.x[k]),
          box.y + view.frame.y_scale.compute(points.y[k])];
}}"""
STAR = 17


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A model, and stars of two classes that it knows."""
    folder = tmp_path_factory.mktemp("explore")
    spectra, labels = make_spectra(80, n_pixels=300, snr=100, random_state=0)
    spectra.meta = {"survey": np.array(["one", "two"])[np.arange(80) % 2]}
    save_spectra(folder / "stars.npz", spectra, labels)
    joblib.dump(PCA(5, random_state=0).fit(spectra), folder / "pca.joblib")
    return folder


@pytest.fixture(scope="module")
def browser():
    if BROWSER is None:
        pytest.skip(f"no browser: install one of {', '.join(NAMES)}, or set SKSPEC_CHROMIUM")
    with playwright.sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=BROWSER, args=OPTIONS)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser):
    """Function that opens an address; afterwards nothing may have gone wrong, or gone elsewhere."""
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    errors, hosts = [], set()
    wrong = ("error", "warning")
    page.on("console", lambda said: errors.append(said.text) if said.type in wrong else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: hosts.add(urlsplit(request.url).hostname or ""))
    page.on("websocket", lambda socket: hosts.add(urlsplit(socket.url).hostname))

    def go(address):
        page.goto(address)
        page.wait_for_function(
            "window.Bokeh && Bokeh.documents.length && Bokeh.documents[0].is_idle"
        )
        return page

    yield go
    page.close()
    assert errors == []
    assert hosts <= {"127.0.0.1", ""}


@pytest.fixture
def served(files):
    """Address of the page, from the command; which must end quietly when interrupted."""
    command = [
        sys.executable,
        "-m",
        "skspec",
        "explore",
        files / "pca.joblib",
        "--port",
        "0",
        "--data",
        files / "stars.npz",
        "--no-browser",
    ]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        yield re.search(r"http://127\.0\.0\.1:\d+/", run.stdout.readline()).group()
        run.send_signal(signal.SIGINT)
        assert run.wait(timeout=20) == 0
        assert "Traceback" not in run.stderr.read()


@pytest.fixture
def written(files):
    """Address of the static page."""
    command = [
        sys.executable,
        "-m",
        "skspec",
        "explore",
        files / "pca.joblib",
        "--data",
        files / "stars.npz",
        "--static",
        files / "page.html",
    ]
    subprocess.run(command, check=True, capture_output=True)
    return (files / "page.html").as_uri()


def curve(page, name):
    return np.array(page.evaluate(f"Array.from({MODEL}('curves').data['{name}'])"), dtype=float)


def frame(page, name="flux"):
    """Where a figure is on the screen."""
    box = f"Bokeh.index.find_one({MODEL}('{name}')).el.getBoundingClientRect().toJSON()"
    return {side: page.evaluate(box)[side] for side in ("x", "y", "width", "height")}


def drag(page, slider, distance):
    box = page.locator(".noUi-handle").nth(slider).bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + distance, y, steps=8)
    page.mouse.up()


def check_sliders(page):
    before, seen = curve(page, "decoded"), page.screenshot(clip=frame(page))
    drag(page, 0, 60)
    page.wait_for_function(f"{MODEL}('curves').data.difference.some((v) => Math.abs(v) > 1e-4)")
    page.wait_for_timeout(300)
    assert np.abs(curve(page, "decoded") - before).max() > 1e-3
    assert page.screenshot(clip=frame(page)) != seen
    page.get_by_text("back to the start").click()
    page.wait_for_function(f"{MODEL}('curves').data.difference.every((v) => v === 0)")
    assert np.allclose(curve(page, "decoded"), before, atol=1e-6)


def wait_for_star(page):
    """Until its spectrum is drawn: the server sends it after its name and its neighbours."""
    page.wait_for_function(f"{MODEL}('curves').data.observed.every(Number.isFinite)")


def check_stars(page):
    page.mouse.click(*page.evaluate(PLACE, STAR))
    page.wait_for_function(f"{MODEL}('table').data.name.length === 8")
    page.get_by_text(f"star {STAR}", exact=True).first.wait_for()
    page.get_by_text("reduced χ²").wait_for()
    wait_for_star(page)
    distance = page.evaluate(f"Array.from({MODEL}('table').data.distance)")
    assert distance == sorted(distance) and distance[0] > 0
    neighbour = page.evaluate(f"{MODEL}('table').data.name[0]")
    page.locator(".slick-cell", has_text=re.compile(f"^{neighbour}$")).click()
    page.wait_for_function(f"{MODEL}('star').text.includes('{neighbour}<')")
    wait_for_star(page)
    assert curve(page, "observed").size == 300


def check_colours(page):
    page.locator("select").nth(-1).scroll_into_view_if_needed()
    page.evaluate(f"{MODEL}('colour').value = 'survey'")
    page.get_by_text("two 40").wait_for()
    page.evaluate(f"{MODEL}('across').value = {MODEL}('across').options[2][0]")
    page.wait_for_function(
        f"Bokeh.index.find_one({MODEL}('scatter')).model.below[0].axis_label === 'node 2'"
    )


def check_zoom(page):
    """The wheel narrows the window, and the toolbar brings it back."""
    width = f"(() => {{ const r = {MODEL}('flux').x_range; return r.end - r.start; }})()"
    before = page.evaluate(width)
    box = frame(page)
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 80)
    page.mouse.wheel(0, -400)
    page.wait_for_function(f"{width} < {0.9 * before}")
    page.locator(".bk-tool-icon-reset").first.click()
    page.wait_for_function(f"Math.abs({width} - {before}) < 1e-6")


def test_served(served, visit):
    page = visit(served)
    check_sliders(page)
    check_stars(page)
    check_colours(page)
    check_zoom(page)
    page.evaluate(f"{MODEL}('label').value = 'teff'")
    page.get_by_text(re.compile("r = .?[01].[0-9]+")).wait_for()


def test_static(written, visit):
    page = visit(written)
    check_sliders(page)
    check_stars(page)
    check_colours(page)
    check_zoom(page)
    drag(page, 1, -30)  # leaves the star
    page.wait_for_function(f"{MODEL}('table').data.name.length === 0")
    assert np.isnan(curve(page, "observed")).all()
