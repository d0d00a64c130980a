"""Make the virtual environments in which other tools open our folders: `python tests/interop/make_environments.py [lane ...]`.

Each lane holds tools whose pins go together; none of them has picolm, so what they read is only the folder. A lane that
stands with the same requirements is left alone.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENTS = ROOT / "build" / "interop"
TORCH = "torch==2.13.0"
LANES = {
    "modern": (
        TORCH,
        "transformers==5.23.0",
        "transformer-lens==4.3.0",
        "nnsight==0.8.1",
        "lm-eval[hf]==0.4.13",
    ),
    "legacy": (TORCH, "transformers==4.57.6", "huggingface-hub==0.36.2"),
    "sae": (TORCH, "sae-lens==6.54.12"),
}


def python_of(lane: str) -> Path:
    """The interpreter of a lane."""
    return ENVIRONMENTS / lane / "bin" / "python"


def make(lane: str) -> None:
    """Create a lane, unless it stands with these very requirements."""
    stamp = ENVIRONMENTS / lane / "requirements.txt"
    wanted = "\n".join(LANES[lane]) + "\n"
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    print(f"making {stamp.parent}: {', '.join(LANES[lane])}", flush=True)
    venv.create(stamp.parent, with_pip=True, clear=True)
    # torch first and alone: where a build without CUDA is on offer, what follows then keeps it
    for requirements in ((TORCH,), LANES[lane]):
        subprocess.run([python_of(lane), "-m", "pip", "install", "--quiet", *requirements], check=True)
    stamp.write_text(wanted)


if __name__ == "__main__":
    for name in sys.argv[1:] or LANES:
        make(name)
