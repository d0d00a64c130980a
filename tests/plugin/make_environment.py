"""Make the environment in which the foreign package is tried: `python tests/plugin/make_environment.py`. Seconds.

A fresh environment with the wheel of picolm and the wheel of the package, installed by pip. What both need is looked up in the
environment this is called from, by a path file; an editable picolm there is not seen, since path files are not followed twice.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "examples" / "plugin_package"
PLACE = ROOT / "build" / "plugin"
PYTHON = PLACE / "environment" / ("Scripts" if sys.platform == "win32" else "bin") / "python"


def make() -> None:
    """Two wheels, an environment, and the wheels in it."""
    wheels = PLACE / "wheels"
    shutil.rmtree(wheels, ignore_errors=True)
    for project in (ROOT, PACKAGE):
        _pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels), str(project))
    venv.create(PLACE / "environment", with_pip=False, clear=True)
    _pip("--python", str(PYTHON), "install", "--no-deps", *map(str, wheels.glob("*.whl")))
    _site_packages().joinpath("what_they_need.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")


def _site_packages() -> Path:
    command = [str(PYTHON), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    return Path(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())


def _pip(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", "--quiet", *words], check=True)


if __name__ == "__main__":
    make()
