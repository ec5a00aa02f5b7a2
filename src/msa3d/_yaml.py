"""Reading YAML that somebody else may have written: no objects, no repeated keys, and bounds on everything."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from msa3d.errors import DatasetError

#: A description of a hundred galaxies has 2,000 values in 60 kB.
MOST_BYTES = 1_000_000
MOST_VALUES = 50_000
DEEPEST = 20
LONGEST_TEXT = 2_000
LONGEST_NUMBER = 40


class _Loader(yaml.SafeLoader):
    """YAML that does not let a key be given twice, nor a number be endless."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for place, _ in node.value:
            key = self.construct_object(place, deep=True)
            if isinstance(key, Hashable):
                if key in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"{key!r} given twice", node.start_mark)
                seen.add(key)
        return super().construct_mapping(node, deep)

    def construct_number(self, node: yaml.ScalarNode) -> float | int:
        if len(node.value) > LONGEST_NUMBER:
            raise yaml.constructor.ConstructorError(
                None, None, f"a number of more than {LONGEST_NUMBER} characters", node.start_mark
            )
        kind = node.tag.rpartition(":")[2]
        return self.construct_yaml_int(node) if kind == "int" else self.construct_yaml_float(node)


for _kind in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _Loader.construct_number)


def read_yaml(path: Path) -> Any:
    """Read a YAML file.

    Parameters
    ----------
    path : Path
        The file, UTF-8.

    Returns
    -------
    Any
        Mappings, lists, texts, numbers, booleans, dates and None; None for an empty file.

    Raises
    ------
    DatasetError
        Where it cannot be read or is not YAML, repeats a key, refers to another place in itself (``*alias``), or is
        larger than the bounds of this module; one sentence that names file and line.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise DatasetError(f"{path} has more than {MOST_BYTES} bytes, which no YAML file of msa3d needs.")
        text = content.decode("utf-8")
        _check_bounds(path, text)
        return yaml.load(text, Loader=_Loader)
    except OSError as error:
        raise DatasetError(f"{path} cannot be read ({error.strerror}).") from error
    except (yaml.YAMLError, ValueError) as error:
        # ValueError: no UTF-8, or a date or number that only looks like one.
        raise DatasetError(f"{path} is not valid YAML: {' '.join(str(error).split())[:500]}.") from error


def _check_bounds(path: Path, text: str) -> None:
    """Go over the file as a stream of events, which takes no memory, before anything is built of it."""
    depth = values = 0
    for event in yaml.parse(text, Loader=_Loader):
        at = f"{path}, line {event.start_mark.line + 1}"
        if isinstance(event, yaml.AliasEvent):
            raise DatasetError(f"{at}: *{event.anchor[:40]} refers to another place in the file; write its value out.")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.ScalarEvent):
            values += 1
            if len(event.value) > LONGEST_TEXT:
                raise DatasetError(f"{at}: a value has more than {LONGEST_TEXT} characters; shorten it.")
        if depth > DEEPEST:
            raise DatasetError(f"{at}: mappings and lists are nested more than {DEEPEST} deep; unfold them.")
        if values > MOST_VALUES:
            raise DatasetError(f"{at}: the file has more than {MOST_VALUES} values; split it.")
