"""Let asdf load its plugins once, among them packages that younger ones make complain."""

import warnings

import asdf

with warnings.catch_warnings():
    # One of the plugins imports matplotlib 3.8, which uses old names of pyparsing; asdf would drop it.
    warnings.simplefilter("ignore")
    asdf.get_config().resource_mappings  # noqa: B018
