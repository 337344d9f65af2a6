"""YAML with line marks and YAML 1.2 scalars, so that every complaint can name file and line.

PyYAML resolves scalars by YAML 1.1: `1e-5` is a string, `no` and `on` are booleans, `010` is 8,
`1:30` is 90, and the last of two equal keys silently wins. Contracts are full of `1e-5`, so the
document is composed by PyYAML's C parser with the YAML 1.2 core schema (yaml.org/spec/1.2.2,
section 10.3.2), and built here, where duplicate keys are found and lines are kept.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import yaml

_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

Path_ = tuple[str | int, ...]
_COLLECTION_TAGS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")


class _CoreSchemaLoader(_Base):  # type: ignore[misc]
    """PyYAML's parser with the implicit resolvers of the YAML 1.2 core schema."""

    yaml_implicit_resolvers: ClassVar[dict[str, list[tuple[str, re.Pattern[str]]]]] = {}


def _resolve(tag: str, pattern: str, first: list[str]) -> None:
    """`first`: the characters that such a scalar may begin with, "" for the empty one."""
    _CoreSchemaLoader.add_implicit_resolver(
        f"tag:yaml.org,2002:{tag}", re.compile(f"^(?:{pattern})$"), first
    )


_resolve("null", r"~|null|Null|NULL|", ["~", "n", "N", ""])
_resolve("bool", r"true|True|TRUE|false|False|FALSE", [*"tTfF"])
_resolve("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", [*"-+0123456789"])
_resolve(
    "float",
    r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
    [*"-+0123456789."],
)

# Far beyond any contract. The C parser recurses without a limit of its own, and a few aliases of
# aliases would otherwise be written out into more nodes than there is memory for.
_DEEPEST = 40
_MOST_NODES = 100_000


class DocumentError(Exception):
    """The file is not readable YAML. `line` counts from 1."""

    def __init__(self, line: int, message: str, fix: str) -> None:
        super().__init__(message)
        self.line = line
        self.fix = fix


@dataclass(frozen=True)
class Document:
    """A parsed YAML file: plain data, and the line of every node by its path."""

    path: Path
    data: Any
    lines: dict[Path_, int]

    def line(self, *path: str | int) -> int:
        """The line of the node at `path`, or of its nearest ancestor that has one."""
        while path not in self.lines:
            path = path[:-1]
        return self.lines[path]


def read_document(path: Path) -> Document:
    """Read one YAML file.

    Raises:
        DocumentError: not readable, not UTF-8, not YAML, several documents, a duplicate key, a
            recursive alias, or more than anybody would write.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise DocumentError(1, f"cannot be read: {error.strerror}", "check the path") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise DocumentError(line, f"not UTF-8: {error.reason}", "save the file as UTF-8") from None
    try:
        _check_depth(text)
        node = yaml.compose(text, Loader=_CoreSchemaLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise DocumentError(line, f"not YAML: {error.problem}", "mend the syntax") from None
    except yaml.YAMLError as error:
        reason = str(error).partition("\n")[0]
        raise DocumentError(1, f"not YAML: {reason}", "mend the syntax") from None
    if node is None:
        raise DocumentError(1, "the file is empty", "write a contract, or delete the file")
    lines: dict[Path_, int] = {}
    return Document(path, _build(node, (), lines, ()), lines)


def _check_depth(text: str) -> None:
    depth = 0
    event: Any
    for event in yaml.parse(text, Loader=_CoreSchemaLoader):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            line = event.start_mark.line + 1
            raise DocumentError(line, f"nested deeper than {_DEEPEST}", "write it flatter")


def _build(
    node: yaml.Node, path: Path_, lines: dict[Path_, int], ancestors: tuple[yaml.Node, ...]
) -> Any:
    line = node.start_mark.line + 1
    lines[path] = line
    if len(lines) > _MOST_NODES:
        what = f"more than {_MOST_NODES} values once its aliases are written out"
        raise DocumentError(line, what, "use fewer aliases")
    if any(node is ancestor for ancestor in ancestors):
        raise DocumentError(line, "an alias refers to itself", "write the value out")
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node, line)
    if node.tag not in _COLLECTION_TAGS:
        raise DocumentError(line, f"the tag {node.tag} is not known here", "drop the tag")
    ancestors = (*ancestors, node)
    if isinstance(node, yaml.SequenceNode):
        return [_build(item, (*path, i), lines, ancestors) for i, item in enumerate(node.value)]
    return _mapping(node, path, lines, ancestors)


def _mapping(
    node: yaml.Node, path: Path_, lines: dict[Path_, int], ancestors: tuple[yaml.Node, ...]
) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            raise DocumentError(line, "a key is not a plain word", "use a string as key")
        key = str(key_node.value)
        if key in result:
            first = lines[(*path, key)]
            raise DocumentError(
                line,
                f"key {key!r} stands twice (first on line {first}); YAML would keep the last",
                "merge the two entries or rename one",
            )
        result[key] = _build(value_node, (*path, key), lines, ancestors)
        lines[(*path, key)] = line
    return result


def _scalar(node: yaml.ScalarNode, line: int) -> Any:
    kind = node.tag.rpartition(":")[2]
    text = node.value
    try:
        match kind:
            case "null":
                return None
            case "bool":
                return text.lower() == "true"
            case "int":
                return int(text, 0 if text[:2] in ("0o", "0x") else 10)
            case "float":
                return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
            case "str":
                return text
    except ValueError:
        pass
    raise DocumentError(line, f"{text!r} is no {kind}", "quote it, or write a plain value")
