"""Real data and reference files, from MAST and CRDS."""
