"""What all models of a dataset have in common, and reading the YAML that somebody else may have written.

YAML is read without objects, repeated keys and aliases, and within bounds on everything.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from msa3d.errors import DatasetError

#: Shutters along a slit in a quadrant of the MSA: no slitlet can be longer.
SHUTTERS = 171


Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]


def plain_name(text: str) -> str:
    """Return a name that leads to no other directory; a ValueError tells of one that is not so."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", text):
        raise ValueError("a plain name is wanted: at most 100 letters, digits, _ . and -, and no directory")
    return text


def _one_line(text: str) -> str:
    if len(text) > 200 or not text.isprintable():
        raise ValueError("one line of at most 200 characters is wanted")
    return text


#: Name that becomes that of a file, or part of it: it cannot lead out of the directory where it is used.
PlainName = Annotated[str, AfterValidator(plain_name)]
#: Name or title for readers; it can have any printable characters, and is escaped where it is shown.
OneLine = Annotated[str, AfterValidator(_one_line)]
#: Identifier of a source, as in the columns of 32-bit integers of a metafile.
SourceId = Annotated[int, Field(ge=-(2**31), lt=2**31)]


def nearest(word: Any, known: Any) -> str:
    """Hint at the closest of the known words, for an error sentence; empty where none is close."""
    close = difflib.get_close_matches(str(word), list(known), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""


class Model(BaseModel):
    """Frozen, without unknown keys, and with finite numbers only.

    `old_keys` are those of earlier versions, each with what to do instead: one phrase for the error sentence.
    """

    old_keys: ClassVar[Mapping[str, str]] = {}
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


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
