"""The embedded observation: a forward simulation that jwst reduces as if it were real.

Nothing but the command line, the tests and the data cell of the notebooks may import this package, so
that no reduction step can peek at the truth.
"""
