"""Import matplotlib 3.8 once without its complaints about the younger pyparsing."""

import warnings

import matplotlib.backends.backend_agg
import matplotlib.figure

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import matplotlib.backends.backend_agg
    import matplotlib.figure  # noqa: F401
