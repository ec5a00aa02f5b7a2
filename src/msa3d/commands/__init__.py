"""The sub-commands of `msa3d`, a module a group; `msa3d.cli` puts them together.

Every module has a function ``add_to(app)``. Modules of the steps are imported inside the commands, so that
``msa3d --help`` does not wait for jwst.
"""
