"""Cubes from calibrated slits, their files, and what is extracted from them."""
