"""`pico list SORT`: what can be named in YAML, built in or installed."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from picolm.base.options import Option
    from picolm.testing.sorts import Sort


def list(
    sort: Annotated[
        str | None,
        typer.Argument(
            help="architecture, training-method, optimizer, schedule, data-source, evaluation, component, metric or panel."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON list.")] = False,
) -> None:
    """Say what can be named in YAML: each name with its sentence, its options and where it comes from.

    Without SORT: the nine sorts of thing that can be added from a file or package of one's own.
    """
    from picolm.testing.sorts import SORTS, find_sort

    if sort is None:
        _print_sorts(SORTS, as_json)
        return
    _print_entries(find_sort(sort), as_json)


def _print_sorts(sorts: tuple[Sort, ...], as_json: bool) -> None:
    from picolm.cli.console import say_next

    if as_json:
        rows = [
            {"name": each.name, "sentence": each.sentence, "setting": each.setting, "contract": each.contract} for each in sorts
        ]
        typer.echo(json.dumps(rows, indent=1))
        return
    width = max(len(each.name) for each in sorts)
    for each in sorts:
        typer.echo(f"{each.name:<{width}}  {each.sentence}\n{'':<{width}}  named in {each.setting}; contract: {each.contract}")
    say_next("pico list metric")


def _print_entries(sort: Sort, as_json: bool) -> None:
    from picolm.cli.console import say_next
    from picolm.testing.sorts import options_of_entry

    rows = [(entry, options_of_entry(entry)) for entry in sort.registry.entries()]
    if as_json:
        typer.echo(json.dumps([_record(entry, options) for entry, options in rows], indent=1, ensure_ascii=False))
        return
    for entry, options in rows:
        typer.echo(f"{entry.name}\n{_indented(entry.sentence)}")
        for option in options:
            typer.echo(_indented(f"- {described(option)}"))
        typer.echo(_indented(f"from {entry.origin}"))
    example = rows[0][0].name if rows else "./mine.py:mine"
    typer.echo(f"\nor your own: `module:object` or `./mine.py:object` in {sort.setting}")
    say_next(f"pico check {sort.name}:{example}")


def _indented(text: str) -> str:
    """The text below a name: wrapped where it is read on a terminal, one line where it goes to another program."""
    if not sys.stdout.isatty():
        return f"    {text}"
    width = min(shutil.get_terminal_size().columns, 110)
    return textwrap.fill(text, width, initial_indent="    ", subsequent_indent="      ", break_on_hyphens=False)


def _record(entry: Any, options: Any) -> dict[str, Any]:
    fields = [
        {"name": each.name, "type": each.type, "required": each.required, "default": each.default, "sentence": each.sentence}
        for each in options
    ]
    return {"name": entry.name, "sentence": entry.sentence, "origin": entry.origin, "options": fields}


def described(option: Option) -> str:
    """`norm_type: frobenius | nuclear (must be given)`."""
    default = "must be given" if option.required else f"default {json.dumps(option.default, ensure_ascii=False)}"
    return f"{option.name}: {option.type} ({default})" + (f". {option.sentence}" if option.sentence else "")
