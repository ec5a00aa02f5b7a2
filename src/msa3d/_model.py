"""What all parts of a dataset have in common."""

from __future__ import annotations

import difflib
import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

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
    """Frozen, without unknown keys, and with finite numbers only."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)
