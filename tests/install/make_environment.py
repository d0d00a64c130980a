"""Make the environment in which the wheel is tried: `python tests/install/make_environment.py`. No extra, no repository."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PLACE = ROOT / "build" / "install"
PYTHON = PLACE / "environment" / ("Scripts" if sys.platform == "win32" else "bin") / "python"


def make() -> None:
    """Wheel, environment, and the wheel in it with the pinned versions. What others need is kept between calls."""
    wheels = PLACE / "wheels"
    shutil.rmtree(wheels, ignore_errors=True)
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        str(wheels),
        ".",
    ]
    subprocess.run(build, cwd=ROOT, check=True)
    (wheel,) = wheels.glob("picolm-*.whl")
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8") + (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    stamp, wanted = PLACE / "requirements", hashlib.sha256(pins.encode()).hexdigest()
    if not stamp.is_file() or stamp.read_text(encoding="utf-8") != wanted:
        venv.create(PLACE / "environment", with_pip=True, clear=True)
        _install("torch==2.13.0")  # first and alone: where a build without CUDA is on offer, what follows keeps it
        _install(str(wheel))
        stamp.write_text(wanted, encoding="utf-8")
    _install("--force-reinstall", "--no-deps", str(wheel))


def _install(*what: str) -> None:
    constraints = str(ROOT / "constraints.txt")
    subprocess.run([PYTHON, "-m", "pip", "install", "--quiet", "--constraint", constraints, *what], cwd=PLACE, check=True)


if __name__ == "__main__":
    make()
