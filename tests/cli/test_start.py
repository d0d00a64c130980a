"""What starting costs: the help and the import stay light."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time

HEAVY = {"torch", "numpy", "pandas", "pyarrow", "pydantic", "yaml", "lightning_fabric", "transformers", "altair", "safetensors"}


def modules_after(code: str) -> set[str]:
    script = f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    return {name.split(".")[0] for name in json.loads(output.splitlines()[-1])}


def test_help_imports_only_typer_rich_and_the_standard_library():
    bare = modules_after("import typer, rich.console, rich.markup, rich.progress, importlib.metadata")
    loaded = modules_after("import picolm.cli.main")
    extra = loaded - bare - set(sys.stdlib_module_names)
    assert extra == {"picolm"}


def test_importing_picolm_loads_nothing_heavy():
    assert not modules_after("import picolm") & HEAVY


def test_opening_a_run_loads_no_torch():
    assert "torch" not in modules_after("import picolm\npicolm.open_run")


def test_help_takes_at_most_one_and_a_half_times_a_bare_typer_help():
    bare = (
        "import typer\nfrom typing import Annotated\napp = typer.Typer(rich_markup_mode='rich')\n"
        "@app.command()\ndef a(x: Annotated[str, typer.Argument(help='x')]): 'do a'\n"
        "@app.command()\ndef b(x: str = 'y'): 'do b'\napp(['--help'])"
    )
    ours = "import sys\nsys.argv = ['pico', '--help']\nfrom picolm.cli.main import main\nmain()"
    seconds: dict[str, list[float]] = {bare: [], ours: []}
    for _ in range(7):
        for script in (bare, ours):
            begun = time.perf_counter()
            subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
            seconds[script].append(time.perf_counter() - begun)
    assert min(seconds[ours]) <= 1.5 * min(seconds[bare]), {name: statistics.median(s) for name, s in seconds.items()}


def test_the_help_says_of_each_verb_what_its_file_says():
    from picolm.cli.main import VERBS, load_verb

    for name, verb in VERBS.items():
        command = load_verb(name)
        assert " ".join(command.help.split("\n\n")[0].split()) == verb.sentence


def test_every_verb_has_a_file_and_every_file_of_a_verb_is_offered():
    from pathlib import Path

    import picolm.cli
    from picolm.cli.main import VERBS

    files = {path.stem for path in Path(picolm.cli.__path__[0]).glob("*.py")}
    shared = {"__init__", "main", "console", "progress", "data_look", "data_share", "study_lines"}
    assert files - shared == set(VERBS)
