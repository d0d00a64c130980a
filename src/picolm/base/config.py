"""Strict typed settings: YAML or `--set a.b=c` comes in, frozen models or one clear error go out.

Every section of a configuration file is a `Settings` model that lives beside the code it sets. `train/config.py`
and `analyze/config.py` join them into whole files.
"""

from __future__ import annotations

import hashlib
import json
import re
import types
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

import pydantic
import pydantic_core
import yaml
from pydantic.fields import FieldInfo

from picolm.base.errors import PicoError, nearest, suggestion


class OperationalMark:
    """Marks a field that may change under an existing run; every other field belongs to the run's identity."""


OPERATIONAL = OperationalMark()


class Settings(pydantic.BaseModel):
    """Frozen, unknown keys forbidden, lax about lists and numbers written as text, strict about booleans."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=())

    short_forms: ClassVar[tuple[dict[str, Any], ...]] = ()
    """What may be written in place of the mapping, as JSON schemas: for editors, which know nothing of validators."""

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: pydantic_core.CoreSchema, handler: pydantic.GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """The schema of the mapping, and of its short forms beside it."""
        whole = handler.resolve_ref_schema(handler(core_schema))
        if not cls.short_forms:
            return whole
        return {"title": cls.__name__, "anyOf": [*cls.short_forms, {"title": f"{cls.__name__} in full", **whole}]}

    @pydantic.field_validator("*", mode="before")
    @classmethod
    def _booleans_stay_booleans(cls, value: Any, info: pydantic.ValidationInfo) -> Any:
        field = cls.model_fields.get(info.field_name or "")
        if field is None:
            return value
        kinds = set(leaf_types(field.annotation))
        if isinstance(value, bool) and not kinds & {bool, object, Any}:
            raise ValueError(f"{str(value).lower()} is a boolean, which is not allowed here")
        if not isinstance(value, bool) and kinds - {type(None)} == {bool} and value is not None:
            raise ValueError(f"`{value}` is not a boolean: write true or false")
        return value


class AlsoWritten:
    """Marks a field that may also be written in other forms, each a JSON schema: editors know nothing of validators."""

    def __init__(self, *forms: dict[str, Any]) -> None:
        self.forms = forms

    def __get_pydantic_json_schema__(
        self, core_schema: pydantic_core.CoreSchema, handler: pydantic.GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """The schema of the field, and of its other forms beside it."""
        return {"anyOf": [*self.forms, handler(core_schema)]}


S = TypeVar("S", bound=Settings)


def kind_of(value: Any) -> str:
    """The `kind` of a thing of several kinds, for `pydantic.Discriminator`; empty if it says none."""
    return str(value.get("kind", "") if isinstance(value, dict) else getattr(value, "kind", ""))


def leaf_types(annotation: Any) -> Iterator[Any]:
    """The types an annotation allows, unions and literals taken apart."""
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        yield from leaf_types(typing.get_args(annotation)[0])
    elif origin in (typing.Union, types.UnionType):
        for argument in typing.get_args(annotation):
            yield from leaf_types(argument)
    elif origin is typing.Literal:
        yield from (type(value) for value in typing.get_args(annotation))
    else:
        yield annotation


class _Loader(yaml.SafeLoader):
    """SafeLoader with the scalar rules of YAML 1.2: `3e-4` is a float, `no` is text, `12:30` is text; no repeated keys."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, typing.Hashable) and key in seen and key != "<<":
                mark = key_node.start_mark
                raise PicoError(f"line {mark.line + 1}: the key `{key}` appears twice", "keep one of the two")
            if isinstance(key, typing.Hashable):
                seen.add(key)
        return super().construct_mapping(node, deep=deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag in ("tag:yaml.org,2002:null", "tag:yaml.org,2002:merge")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"^[-+]?(?:[0-9][0-9_]*|0x[0-9a-fA-F]+)$"), list("-+0123456789")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^(?:[-+]?(?:[0-9][0-9_]*)?\.?[0-9]+(?:[eE][-+]?[0-9]+)?|[-+]?[0-9][0-9_]*\.(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
    list("-+0123456789."),
)


def _construct_integer(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node)).replace("_", "")
    return int(text, 16) if "0x" in text else int(text, 10)


_Loader.add_constructor("tag:yaml.org,2002:int", _construct_integer)


def parse_yaml(text: str, source: str) -> Any:
    """The YAML document in `text`; `source` names it in errors."""
    try:
        return yaml.load(text, Loader=_Loader)
    except PicoError as error:
        raise PicoError(f"{source}: {error.message}", error.hint) from error
    except yaml.YAMLError as error:
        raise _explain_syntax(error, source) from error


def _explain_syntax(error: yaml.YAMLError, source: str) -> PicoError:
    """Where YAML stops making sense; of an error that spans lines, the last is where a person must look."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return PicoError(f"{source} is not valid YAML: {' '.join(str(error).split())}")
    problem = " ".join(str(getattr(error, "problem", "") or "").split())
    if "<document start>" in problem:
        return PicoError(
            f"{source} is not valid YAML: line {mark.line + 1} is indented less than the first key of the file",
            "the section that the first key belongs to is missing above it",
        )
    return PicoError(
        f"{source} is not valid YAML: line {mark.line + 1} does not fit what stands above it ({problem})",
        "is the key above it missing, or is it indented otherwise than its neighbours?",
    )


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; an empty file is an empty mapping."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise PicoError(f"there is no file {path}", "give the path of a YAML configuration, such as configs/demo.yaml") from error
    except (OSError, UnicodeDecodeError) as error:
        raise PicoError(f"{path} cannot be read as text: {error}") from error
    data = parse_yaml(text, str(path))
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise PicoError(f"{path} holds a {type(data).__name__}, not settings", "write `section:` lines with settings below them")
    return data


class SettingsDumper(yaml.SafeDumper):
    """SafeDumper that quotes what `_Loader` would not read back as text."""


SettingsDumper.yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers


def dump_yaml(settings: Settings) -> str:
    """The settings as YAML, every default written out, in field order."""
    return yaml.dump(settings.model_dump(mode="json"), Dumper=SettingsDumper, sort_keys=False, allow_unicode=True, width=110)


def apply_overrides(data: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A copy of `data` with each `a.b=c` of the command line set; values are read as YAML."""
    result: dict[str, Any] = json.loads(json.dumps(data))
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key.strip():
            raise PicoError(f"--set {override}: not of the form key=value", "for example --set training.max_steps=10")
        section = result
        *parents, last = key.strip().split(".")
        for parent in parents:
            if not isinstance(section.get(parent), dict):
                section[parent] = {}
            section = section[parent]
        section[last] = parse_yaml(text, f"--set {override}")
    return result


def parse_settings(model: type[S], data: Any, source: str) -> S:
    """`data` as an instance of `model`; PicoError names file, key, value and the nearest thing that is allowed."""
    try:
        return model.model_validate(data)
    except pydantic.ValidationError as error:
        raise _explain(model, error, data, source) from None


def _explain(model: type[Settings], error: pydantic.ValidationError, data: Any, source: str) -> PicoError:
    problems: list[Any] = error.errors(include_url=False)
    unknown = [problem for problem in problems if problem["type"] == "extra_forbidden"]
    problem = (unknown or problems)[0]
    location = _written(problem["loc"], data)
    place = _place(model, location)
    key = ".".join(place.keys)
    if problem["type"] == "extra_forbidden":
        hint = _key_hint(model, place.keys, _fields_of(place.parents))
        return PicoError(f"{source}: {key} is not a setting{_also_missing(problems)}", hint)
    if problem["type"] == "union_tag_invalid":
        return _explain_kind(problem["ctx"], key, source)
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "missing":
        return PicoError(f"{source}: {key} must be given", place.hint)
    if problem["type"] in _NO_MAPPING:
        return _explain_no_mapping(problem["input"], key, place, source, _also_missing(problems))
    where = f"{source}: {key} = {_shown(problem['input'])}: " if key else f"{source}: "
    here = [each for each in problems if _written(each["loc"], data) == location]
    if len(here) > 1:  # one value, which none of several types accepts
        bounds = [each["msg"] for each in here if not each["type"].endswith("_type")]
        message = bounds[0].removeprefix("Value error, ") if bounds else "not of a type that is allowed here"
    places = {_written(each["loc"], data) for each in problems}
    others = [other for other in places if other != location[: len(other)]]  # above it: the same value, as another type
    more = f" (and {len(others)} more)" if others else ""
    return PicoError(where + message + more, place.hint)


def _written(location: Sequence[Any], data: Any) -> tuple[Any, ...]:
    """Pydantic's location without its labels: names of types, where several are allowed, that no key of the data has."""
    found: list[Any] = []
    for part in location:
        if isinstance(data, dict | list | tuple) and part in (data if isinstance(data, dict) else range(len(data))):
            data = data[part]
        elif isinstance(part, str) and ("[" in part or part.startswith("function-") or part in _SIMPLE_TYPES):
            continue
        else:
            data = None
        found.append(part)
    return tuple(found)


_SIMPLE_TYPES = {"str", "int", "float", "bool", "constrained-int", "constrained-float", "constrained-str"}


_NO_MAPPING = {"model_type", "model_attributes_type", "dict_type"}


def _explain_no_mapping(value: Any, key: str, place: _Place, source: str, also: str) -> PicoError:
    """A section, or a mapping, that holds something else: most often a key whose lines below it are gone."""
    allowed = ", ".join(f"`{name}`" for name in sorted(_fields_of(place.types)))
    hint = f"below it may stand: {allowed}" if allowed else place.hint
    if value is None:
        return PicoError(f"{source}: {key} is empty: write its settings below it, indented, or remove it{also}", hint)
    return PicoError(f"{source}: {key} = {_shown(value)} is not a section of settings{also}", hint)


def _also_missing(problems: Sequence[Any]) -> str:
    """What must be given and is not, besides: where a key is lost, what stood below it is found elsewhere."""
    missing = [".".join(map(str, problem["loc"])) for problem in problems if problem["type"] == "missing"]
    return f" ({', '.join(f'`{key}`' for key in missing[:3])} must be given, too)" if missing else ""


def _explain_kind(context: dict[str, Any], key: str, source: str) -> PicoError:
    kind = str(context["tag"])
    kinds = [text.strip().strip("'") for text in str(context["expected_tags"]).split(",")]
    message = f"{source}: {key}.kind = '{kind}' is not a kind" if kind else f"{source}: {key}.kind must be given"
    return PicoError(message, suggestion(kind, kinds))


def _shown(value: Any) -> str:
    text = repr(value) if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= 80 else text[:77] + "..."


def _key_hint(model: type[Settings], keys: Sequence[str], siblings: dict[str, FieldInfo]) -> str:
    *parents, wrong = keys
    same_name = [path for path in _all_paths(model) if path.rpartition(".")[2] == wrong]
    if same_name:
        nearby = sorted(same_name, key=lambda path: -_shared(path.split("."), parents))
        return f"did you mean {' or '.join(f'`{path}`' for path in nearby[:3])}?"
    close = nearest(wrong, siblings)
    if close is not None:
        return f"did you mean `{'.'.join([*parents, close])}`?"
    return suggestion(wrong, siblings)


def _shared(path: Sequence[str], parents: Sequence[str]) -> int:
    """How many sections two keys have in common, from the outermost on."""
    same = [mine == theirs for mine, theirs in zip(path, parents, strict=False)]
    return same.index(False) if False in same else len(same)


def _all_paths(model: type[Settings]) -> list[str]:
    """Dotted keys of all settings, and of the sections they stand in, outermost first."""
    paths: dict[str, None] = {}
    for path, _ in walk_fields(model):
        parts = path.split(".")
        paths |= {".".join(parts[:count]): None for count in range(1, len(parts) + 1)}
    return sorted(paths, key=lambda path: path.count("."))


class _Place(typing.NamedTuple):
    """Where in a model an error is: the keys a person wrote, the types around the last of them, and its help text."""

    keys: list[str]
    parents: list[Any]
    hint: str
    types: list[Any]
    """What may stand at the last key."""


def _place(model: type[Settings], location: Sequence[Any]) -> _Place:
    """Follow pydantic's location through sections, mappings, lists and things of several kinds, whose kind is not a key."""
    keys: list[str] = []
    types_here: list[Any] = [model]
    parents: list[Any] = [model]
    hint = ""
    for part in location:
        of_kind = [kind for kind in types_here if len(types_here) > 1 and str(part) in kinds_named(kind)]
        if of_kind:
            types_here = of_kind
            continue
        field = _fields_of(types_here).get(str(part))
        hint = " ".join((field.description or "").split()) if field is not None else hint
        parents = types_here
        types_here = list(leaf_types(field.annotation)) if field is not None else element_types(types_here)
        keys.append(str(part))
    return _Place(keys, parents, hint, types_here)


def kinds_named(kind: Any) -> tuple[Any, ...]:
    """The values that the field `kind` of a settings model takes."""
    field = kind.model_fields.get("kind") if isinstance(kind, type) and issubclass(kind, Settings) else None
    return () if field is None else typing.get_args(field.annotation)


def element_types(kinds: Sequence[Any]) -> list[Any]:
    """The types of the values of mappings and lists among `kinds`."""
    found: list[Any] = []
    for kind in kinds:
        arguments = typing.get_args(kind)
        if typing.get_origin(kind) is dict:
            found += leaf_types(arguments[1])
        elif typing.get_origin(kind) in (tuple, list):
            found += leaf_types(arguments[0])
    return found


def _fields_of(kinds: Sequence[Any]) -> dict[str, FieldInfo]:
    sections = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Settings)]
    return {name: field for section in sections for name, field in section.model_fields.items()}


def _section_of(field: FieldInfo) -> type[Settings] | None:
    kinds = [kind for kind in leaf_types(field.annotation) if kind is not type(None)]
    if len(kinds) == 1 and isinstance(kinds[0], type) and issubclass(kinds[0], Settings):
        return kinds[0]
    return None


def walk_fields(model: type[Settings], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """(dotted key, field) of every leaf setting of a model, in order."""
    for name, field in model.model_fields.items():
        section = _section_of(field)
        if section is not None and section.model_config.get("extra") != "allow":
            yield from walk_fields(section, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def flatten(settings: Settings, prefix: str = "") -> dict[str, Any]:
    """Dotted key -> JSON value of every leaf setting."""
    flat: dict[str, Any] = {}
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, Settings) and type(value).model_config.get("extra") != "allow":
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = settings.model_dump(mode="json", include={name})[name]
    return flat


def operational_keys(model: type[Settings]) -> set[str]:
    """Dotted keys of the settings that may change under an existing run."""
    return {key for key, field in walk_fields(model) if any(isinstance(mark, OperationalMark) for mark in field.metadata)}


def identity_values(settings: Settings) -> dict[str, Any]:
    """Dotted key -> value of the settings that make a run what it is."""
    operational = operational_keys(type(settings))
    return {key: value for key, value in flatten(settings).items() if key not in operational}


def identity_hash(settings: Settings) -> str:
    """SHA-256 over the identity settings in canonical JSON."""
    text = json.dumps(identity_values(settings), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
