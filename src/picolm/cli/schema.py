"""`pico schema KIND`: JSON schemas, with which an editor completes and checks YAML while it is typed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def schema(
    kind: Annotated[str, typer.Argument(help="training, analysis, study or report; or `all`, with --out.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder to write it to, as KIND.schema.json. Default: it is printed.", show_default=False)
    ] = None,
) -> None:
    """Write the JSON schema of a file, for an editor that completes and checks it: training, analysis, study or report.

    It knows the names and options of all packages installed. In a YAML file the first line
    `# yaml-language-server: $schema=training.schema.json` leads an editor to it.
    """
    from picolm.base.errors import PicoError
    from picolm.cli.console import say, say_next
    from picolm.schemas.build import file_name, schema_of, schema_text, write_schemas

    if out is None and kind == "all":
        raise PicoError("pico schema all writes several files", "name a folder for them: pico schema all --out schemas")
    if out is None:
        typer.echo(schema_text(schema_of(kind)), nl=False)
        return
    if kind == "all":
        written = write_schemas(out)
    else:
        written = [out / file_name(kind)]
        text = schema_text(schema_of(kind))
        out.mkdir(parents=True, exist_ok=True)
        written[0].write_text(text, encoding="utf-8")
    for path in written:
        say(f"wrote {path}")
    say_next(f"begin a YAML file with: # yaml-language-server: $schema={written[0]}")
