"""What the JWST pipeline says and warns of, into a file."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from msa3d.archive import crds

#: Loggers of the pipeline and of what it calls: all they say goes to the log file.
PIPELINE_LOGGERS = ("stpipe", "jwst", "stdatamodels", "stcal", "CRDS", "py.warnings", "gwcs", "asdf")


@contextmanager
def pipeline_log(path: Path) -> Iterator[None]:
    """Send what the pipeline logs and warns of into a file, and nothing to the terminal."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    # stpipe installs handlers and captures all warnings of the process when first imported: both are undone.
    import stpipe  # noqa: F401

    crds.take_paths_literally()
    logging.captureWarnings(False)
    loggers = [logging.getLogger(name) for name in PIPELINE_LOGGERS]
    before = [(one.handlers[:], one.propagate, one.level) for one in loggers]
    for one in loggers:
        one.handlers, one.propagate = [handler], False
        one.setLevel(logging.INFO)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            warnings.showwarning = _log_warning
            yield
    finally:
        for one, (handlers, propagate, level) in zip(loggers, before, strict=True):
            one.handlers, one.propagate = handlers, propagate
            one.setLevel(level)
        handler.close()


def _log_warning(message, category, filename, lineno, file=None, line=None) -> None:
    """Write a warning to the log instead of to standard error."""
    logging.getLogger("py.warnings").warning("%s:%s: %s: %s", filename, lineno, category.__name__, message)
