"""Find a thing named in YAML: short name, entry point, `module:object` or `./file.py:object`, with its options.

Each of the nine sorts of extension has one `Registry`, kept beside its `contract.py`. Keyword-only parameters of the
object found are its settings; their annotations are the types.
"""

from __future__ import annotations

import collections
import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar, get_type_hints

import pydantic

from picolm.base.config import Settings, parse_settings
from picolm.base.errors import PicoError, suggestion

T = TypeVar("T")


@dataclass(frozen=True)
class Entry:
    """One thing that can be named: its name, the object, and where it comes from."""

    name: str
    object: Any
    origin: str

    @property
    def sentence(self) -> str:
        """First line of the object's docstring."""
        doc = inspect.getdoc(self.object) or ""
        return doc.split("\n", 1)[0]


class Registry:
    """All things of one sort. `builtin_modules` are imported on the first look-up; importing them registers their content."""

    def __init__(self, sort: str, *, builtin_modules: tuple[str, ...]) -> None:
        self.sort = sort
        self.entry_point_group = f"picolm.{sort.replace(' ', '_')}s"
        self._builtin_modules = builtin_modules
        self._entries: dict[str, Entry] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that adds the decorated object under `name`."""

        def add(thing: T) -> T:
            known = self._entries.get(name)
            if known is not None and known.object is not thing:
                raise PicoError(f"{self.sort} `{name}` is registered twice: {known.origin} and {_origin_of(thing)}")
            self._entries[name] = Entry(name, thing, _origin_of(thing))
            return thing

        return add

    def entries(self) -> list[Entry]:
        """Everything that has a name, built-in things first, then installed packages.

        What a package calls by a name that is built in, or claimed by another package, is listed as `module:object`.
        """
        self._import_builtins()
        entries = dict(self._entries)
        entry_points = self._entry_points()
        claims = collections.Counter(entry_point.name for entry_point in entry_points)
        for entry_point in entry_points:
            is_free = entry_point.name not in self._entries and claims[entry_point.name] == 1
            name = entry_point.name if is_free else entry_point.value
            entries[name] = Entry(name, self._load(entry_point), entry_point.value)
        return list(entries.values())

    def find(self, reference: str) -> Any:
        """The object named by `reference`; PicoError with the nearest name if there is none."""
        self._import_builtins()
        if reference in self._entries:
            return self._entries[reference].object
        claims = [entry_point for entry_point in self._entry_points() if entry_point.name == reference]
        if len(claims) > 1:
            places = [entry_point.value for entry_point in claims]
            raise PicoError(
                f"{self.sort} `{reference}`: installed packages give this name to {' and to '.join(places)}",
                f"say which: {' or '.join(f'`{place}`' for place in places)}",
            )
        if claims:
            return self._load(claims[0])
        if ":" in reference:
            return load_object(reference, self.sort)
        names = [*self._entries, *(entry_point.name for entry_point in self._entry_points())]
        raise PicoError(
            f"{self.sort} `{reference}` is not known",
            suggestion(reference, names) + f" (or name your own as `./mine.py:{reference or 'object'}`)",
        )

    def _import_builtins(self) -> None:
        for module in self._builtin_modules:
            importlib.import_module(module)

    def _entry_points(self) -> Collection[importlib.metadata.EntryPoint]:
        """Those of this sort; a package that is found twice on the path counts once."""
        found = importlib.metadata.entry_points(group=self.entry_point_group)
        return {(entry_point.name, entry_point.value): entry_point for entry_point in found}.values()

    def _load(self, entry_point: importlib.metadata.EntryPoint) -> Any:
        return entry_point.load()


def load_object(reference: str, sort: str = "object") -> Any:
    """The object at `package.module:object` or `./file.py:object` (relative to the working directory)."""
    place, _, attribute = reference.rpartition(":")
    module = _load_file(Path(place), reference) if place.endswith(".py") else _load_module(place, reference, sort)
    found: Any = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            public = [name for name in vars(module) if not name.startswith("_")]
            raise PicoError(f"{sort} `{reference}`: {place} has no `{part}`", suggestion(part, public))
        found = getattr(found, part)
    return found


def _load_module(place: str, reference: str, sort: str) -> ModuleType:
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name is not None and (place == error.name or place.startswith(error.name + ".")):
            raise PicoError(
                f"{sort} `{reference}`: there is no importable module `{place}`",
                "install the package, or name a file as `./file.py:object`",
            ) from error
        raise


def _load_file(path: Path, reference: str) -> ModuleType:
    if not path.is_file():
        raise PicoError(f"`{reference}`: there is no file {path}", "the path is relative to the working directory")
    return _import_file(path.resolve(), path.stat().st_mtime_ns)


@functools.cache
def _import_file(path: Path, modified_ns: int) -> ModuleType:
    """The file as a module; one import per version of the file, so that its classes keep their identity."""
    digest = hashlib.sha256(f"{path}:{modified_ns}".encode()).hexdigest()[:12]
    name = f"picolm_user_{path.stem}_{digest}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _origin_of(thing: object) -> str:
    return f"{getattr(thing, '__module__', '?')}:{getattr(thing, '__qualname__', thing)}"


class Named(Settings):
    """A thing named in YAML with its options: `per` or `{name: norm, norm_type: nuclear}`."""

    model_config = pydantic.ConfigDict(extra="allow")
    short_forms = ({"type": "string"},)

    name: str
    """Short name, entry point, `module:object` or `./file.py:object`."""

    @pydantic.model_validator(mode="before")
    @classmethod
    def _accept_plain_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @pydantic.model_serializer(mode="wrap")
    def _write_plain_name(self, handler: Callable[[Any], Any]) -> Any:
        return {"name": self.name, **self.options} if self.options else self.name

    @property
    def options(self) -> dict[str, Any]:
        """The options that ride along with the name."""
        return dict(self.model_extra or {})


@functools.cache
def options_model(thing: Callable[..., Any]) -> type[Settings]:
    """The keyword-only parameters of a function or class as a settings model."""
    target: Any = thing.__init__ if inspect.isclass(thing) else thing
    hints = _keyword_only_hints(target)
    fields: dict[str, Any] = {}
    for parameter in inspect.signature(thing).parameters.values():
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            continue
        default = ... if parameter.default is inspect.Parameter.empty else parameter.default
        fields[parameter.name] = (hints.get(parameter.name, Any), default)
    return pydantic.create_model(f"{getattr(thing, '__name__', 'thing')}_options", __base__=Settings, **fields)


def _keyword_only_hints(target: Any) -> dict[str, Any]:
    """Types of the keyword-only parameters alone: others may be annotated with names that only a type checker sees."""
    parameters = inspect.signature(target).parameters.values()
    wanted = {parameter.name for parameter in parameters if parameter.kind is inspect.Parameter.KEYWORD_ONLY}

    def bearer() -> None:
        """Carries the annotations."""

    annotations = getattr(target, "__annotations__", {})
    bearer.__annotations__ = {name: annotation for name, annotation in annotations.items() if name in wanted}
    return get_type_hints(bearer, globalns=getattr(target, "__globals__", {}), include_extras=True)


def checked_options(thing: Callable[..., Any], options: dict[str, Any], source: str) -> dict[str, Any]:
    """`options` checked against the keyword-only parameters of `thing`, defaults filled in; PicoError names what is wrong."""
    model = options_model(thing)
    settings = parse_settings(model, options, source)
    return {name: getattr(settings, name) for name in model.model_fields}
