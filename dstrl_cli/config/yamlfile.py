"""Reading YAML that people write: strict about mistakes, and free of YAML 1.1's surprises.

`1e6` and `1_000` are numbers, `007` is 7 and never octal; `off`, `1:30`, `0x10` and `2024-01-31`
are text; a key given twice is an error. Nothing in a file is ever executed. Size and nesting are
bounded, an anchor may not contain itself, and what it stands for counts wherever it is named, so
that a short text cannot become a huge document.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import ConstructorError
from yaml.parser import ParserError
from yaml.scanner import ScannerError

from dstrl_cli.config.readfile import MAX_DEPTH, MAX_YAML, read_text
from dstrl_cli.errors import InputError

MAX_VALUES = 20_000
"""Values of a document, those that an alias repeats included."""

_TAG = "tag:yaml.org,2002:"
_TAGS = {None, "!", *(f"{_TAG}{kind}" for kind in ("str", "int", "float", "bool", "null"))}
_TAGS |= {f"{_TAG}map", f"{_TAG}seq"}
"""Kinds of values that a document may ask for; None: as the value looks."""

FAST_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_DIGITS = "[0-9]+(_[0-9]+)*"
_SCALARS = {  # the YAML 1.2 core schema in decimal, and 1_000: tag, pattern, first characters
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": (rf"[-+]?{_DIGITS}", "-+0123456789"),
    "float": (
        rf"[-+]?(\.[0-9]+|{_DIGITS}(\.[0-9]*)?)([eE][-+]?[0-9]+)?"
        r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+0123456789.",
    ),
    "null": (r"~|null|Null|NULL|", "~nN\0"),
}


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise ConstructorError(None, None, "a key must be a word", key.start_mark)
            if key.value in seen:
                problem = f"the key '{key.value}' is given twice"
                raise ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_decimal(self, node: yaml.ScalarNode) -> int:
        """Return the exact whole number; zeros in front do not make it octal (YAML 1.1)."""
        return int(str(self.construct_scalar(node)).replace("_", ""))


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_decimal)
for _tag, (_pattern, _first) in _SCALARS.items():
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}",
        re.compile(rf"^(?:{_pattern})$"),
        ["" if character == "\0" else character for character in _first],
    )


def check_structure(text: str) -> None:
    """Raise yaml.YAMLError where a text is too large, nested too deeply, or has a foreign tag.

    The parser itself calls itself for every level and repeats nothing of an alias, so both must be
    known before it runs; reading events alone does neither.
    """
    if len(text) > MAX_YAML:
        raise yaml.YAMLError(f"is larger than {MAX_YAML:,} characters")
    known: dict[str, _Group] = {}
    open_groups = [_Group()]
    for event in yaml.parse(text, FAST_LOADER):
        depth = len(open_groups)
        if isinstance(event, yaml.AliasEvent):
            if any(group.anchor == event.anchor for group in open_groups):
                raise _problem(event, f"the anchor '{event.anchor}' contains itself")
            found = known.get(str(event.anchor), _Group())
            depth += found.height - 1
        elif isinstance(event, yaml.CollectionEndEvent):
            found = open_groups.pop()
            depth -= 1
        elif isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent):
            if event.tag not in _TAGS:
                raise _problem(event, f"the tag '{event.tag}' has no meaning here")
            found = _Group(event.anchor)
        else:
            continue
        if depth > MAX_DEPTH:
            raise _problem(event, f"it is nested more than {MAX_DEPTH} deep")
        if isinstance(event, yaml.CollectionStartEvent):
            open_groups.append(found)
            continue
        if found.anchor:
            known[found.anchor] = found
        open_groups[-1].add(found)
        if open_groups[-1].values > MAX_VALUES:
            raise _problem(event, f"it holds more than {MAX_VALUES:,} values")


class _Group:
    """A mapping, a list or a single value: how many values it holds and how deeply they lie."""

    def __init__(self, anchor: str | None = None) -> None:
        self.anchor, self.height, self.values = anchor, 0, 1

    def add(self, inner: _Group) -> None:
        self.values += inner.values
        self.height = max(self.height, inner.height + 1)


def _problem(event: Any, text: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=text, problem_mark=event.start_mark)


def parse_yaml(text: str, name: str) -> Any:
    """Return the value of a YAML text; `name` (a file or a flag) and the line go into errors."""
    try:
        with suppress(ScannerError, ParserError):  # the other parser places them better
            check_structure(text)
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise InputError(f"{name}{where}: not valid YAML: {error.problem}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"{name}: not valid YAML: {error}") from None
    except (LookupError, TypeError, AttributeError) as error:  # `!!bool maybe`, `!!int ''`
        raise InputError(
            f"{name}: not valid YAML: a value does not fit the tag before it ({error})"
        ) from None


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file. Raises InputError, with file and line."""
    try:
        content = parse_yaml(read_text(path, MAX_YAML), str(path))
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not a text file in UTF-8") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise InputError(f"{path}: must hold keys and values, not a {type(content).__name__}")
    return content
