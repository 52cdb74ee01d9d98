"""Is all of a checkout's skspec/ in the one that is installed, and does all of it import?"""

import sys
from importlib import import_module
from pathlib import Path

import skspec

here, there = Path(sys.argv[1]), Path(skspec.__file__).parent
assert "site-packages" in str(there), f"{there} is not what pip installed"
files = sorted(p.relative_to(here) for p in here.rglob("*") if p.is_file())
missing = [str(path) for path in files if not (there / path).exists()]
assert not missing, f"not installed: {', '.join(missing)}"

rooms = sorted(path.parent.name for path in here.glob("*/__init__.py"))
for room in rooms:
    module = import_module(f"skspec.{room}")
    for name in getattr(module, "__all__", []):
        try:
            getattr(module, name)
        except ImportError as error:  # it needs an extra, and says which
            assert "pip install 'skspec[" in str(error), error
print(f"skspec {skspec.__version__}: {len(files)} files, {len(rooms)} packages")
