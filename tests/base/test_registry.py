from __future__ import annotations

import importlib.metadata
import math
from pathlib import Path

import pytest

from picolm.base.errors import PicoError
from picolm.base.registry import Named, Registry, checked_options, load_object


def make_registry() -> Registry:
    registry = Registry("metric", builtin_modules=())

    @registry.register("norm")
    def norm(x: float, *, norm_type: str = "frobenius", power: int = 2) -> float:
        """How large it is."""
        return x

    return registry


def test_a_short_name_finds_the_registered_object():
    registry = make_registry()
    assert registry.find("norm")(3.0) == 3.0
    assert [(entry.name, entry.sentence) for entry in registry.entries()] == [("norm", "How large it is.")]


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(PicoError, match="did you mean `norm`"):
        make_registry().find("nrom")


def test_two_things_cannot_share_a_name():
    registry = make_registry()
    with pytest.raises(PicoError, match="registered twice"):
        registry.register("norm")(lambda: None)


def test_module_and_object_can_be_named():
    import math

    assert make_registry().find("math:sqrt") is math.sqrt


def test_a_file_of_ones_own_can_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "mine.py").write_text("class Gap:\n    size = 3\n")
    monkeypatch.chdir(tmp_path)
    found = make_registry().find("./mine.py:Gap")
    assert found.size == 3
    assert make_registry().find("./mine.py:Gap") is found


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("./none.py:gap", "there is no file none.py"),
        ("no_such_package.metrics:gap", "no importable module"),
        ("math:sqroot", "did you mean `sqrt`"),
    ],
)
def test_what_cannot_be_loaded_is_explained(reference: str, message: str):
    with pytest.raises(PicoError, match=message):
        load_object(reference)


def test_an_import_error_inside_a_users_file_shows_its_own_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "broken.py").write_text("import a_package_that_is_not_there\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModuleNotFoundError):
        load_object("./broken.py:gap")


def test_options_are_the_keyword_only_parameters():
    norm = make_registry().find("norm")
    assert checked_options(norm, {"power": "3"}, "x") == {"norm_type": "frobenius", "power": 3}
    with pytest.raises(PicoError, match="did you mean `norm_type`"):
        checked_options(norm, {"normtype": "nuclear"}, "x")


def test_a_name_may_carry_options_and_is_written_back_as_it_was():
    assert Named.model_validate("per").model_dump() == "per"
    written = {"name": "norm", "norm_type": "nuclear"}
    named = Named.model_validate(written)
    assert (named.options, named.model_dump()) == ({"norm_type": "nuclear"}, written)


def installed(monkeypatch: pytest.MonkeyPatch, *claims: tuple[str, str]) -> None:
    """As if packages with these entry points were installed."""
    points = [importlib.metadata.EntryPoint(name, place, "group") for name, place in claims]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: points)


def test_a_package_cannot_take_a_built_in_name_but_what_it_brings_is_listed(monkeypatch: pytest.MonkeyPatch):
    installed(monkeypatch, ("norm", "math:sqrt"), ("root", "math:sqrt"))
    registry = make_registry()
    builtin = registry.find("norm")
    assert builtin is not math.sqrt
    named = {entry.name: entry.object for entry in registry.entries()}
    assert (named["norm"], named["math:sqrt"], named["root"]) == (builtin, math.sqrt, math.sqrt)


def test_a_name_that_two_packages_claim_has_to_be_said_in_full(monkeypatch: pytest.MonkeyPatch):
    installed(monkeypatch, ("root", "math:sqrt"), ("root", "cmath:sqrt"))
    with pytest.raises(PicoError, match="give this name to math:sqrt and to cmath:sqrt") as raised:
        make_registry().find("root")
    assert "`math:sqrt` or `cmath:sqrt`" in raised.value.hint
    listed = {entry.name for entry in make_registry().entries()}
    assert {"math:sqrt", "cmath:sqrt"} <= listed and "root" not in listed
    assert make_registry().find("math:sqrt") is math.sqrt


def test_a_package_that_is_found_twice_counts_once(monkeypatch: pytest.MonkeyPatch):
    installed(monkeypatch, ("root", "math:sqrt"), ("root", "math:sqrt"))
    assert make_registry().find("root") is math.sqrt
