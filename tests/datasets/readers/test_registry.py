from pathlib import Path

import pytest

import skspec
from skspec.datasets.readers import SpectrumFileError, formats, read_file
from skspec.datasets.readers._registry import own_readers

PAGE = Path(skspec.__file__).parents[1] / "doc" / "user_guide" / "your_spectra.rst"


def test_the_user_guide_names_every_format():
    if not PAGE.is_file():
        pytest.skip("no documentation here")
    told = {}
    for line in PAGE.read_text().splitlines():
        name, _, what = line.partition(" ")
        told[name.strip("`")] = what.strip()
    ours = {name: what for name, what in formats().items() if name not in own_readers()}
    assert {name: told.get(name) for name in ours} == ours


def test_unknown_format_names_the_near_ones(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("# wavelength flux\n5000 1\n5001 1\n")
    with pytest.raises(SpectrumFileError, match="did you mean.*'lamost_lrs'"):
        read_file(path, "lamost_lr")
