"""Offsets between exposures, measured on the data."""
