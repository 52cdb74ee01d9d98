"""Draws doc/_static/explore.png, the page of ``skspec explore``; needs a Chromium browser."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import joblib
from playwright.sync_api import sync_playwright

from skspec.datasets import make_spectra, save_spectra
from skspec.latent import BetaVAE

BROWSER = os.environ.get("SKSPEC_CHROMIUM") or shutil.which("chromium")
MODEL = "Bokeh.documents[0].get_model_by_name"
STAR = 100


def write_files(folder):
    """A model of 1500 synthetic stars, and these."""
    spectra, labels = make_spectra(
        1500,
        wavelength=(4800.0, 5400.0),
        n_pixels=600,
        snr=(30, 200),
        random_state=0,
        labels=["teff", "logg", "feh", "vsini"],
    )
    save_spectra(folder / "stars.npz", spectra, labels)
    model = BetaVAE(
        12,
        architecture="dense",
        architecture_params={"hidden": (128, 64)},
        beta=30,
        learning_rate_init=0.002,
        max_iter=80,
        random_state=0,
    )
    joblib.dump(model.fit(spectra), folder / "model.joblib")


def photograph(address, path):
    """Choose a star, move a slider, compare with a label."""
    with sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(address)
        page.wait_for_function(
            "window.Bokeh && Bokeh.documents.length && Bokeh.documents[0].is_idle"
        )
        page.get_by_placeholder("name or row of a star, Enter").fill(str(STAR))
        page.keyboard.press("Enter")
        page.get_by_text(f"star {STAR}", exact=True).first.wait_for()
        page.evaluate(f"{MODEL}('label').value = 'teff'")
        box = page.locator(".noUi-handle").first.bounding_box()
        page.mouse.move(box["x"] + 6, box["y"] + 6)
        page.mouse.down()
        page.mouse.move(box["x"] + 40, box["y"] + 6, steps=5)
        page.mouse.up()
        page.get_by_text(re.compile("r = ")).wait_for()
        page.wait_for_timeout(2000)
        page.screenshot(path=path)
        browser.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        write_files(folder)
        command = [
            sys.executable,
            "-m",
            "skspec",
            "explore",
            folder / "model.joblib",
            "--data",
            folder / "stars.npz",
            "--port",
            "0",
            "--no-browser",
        ]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as served:
            try:
                address = re.search(r"http://\S+", served.stdout.readline()).group()
                photograph(address, Path(__file__).parent / "_static" / "explore.png")
            finally:
                served.terminate()
