"""The embedded observation: a forward simulation that jwst reduces as if it were real."""
