"""What was observed: exposures and the metafile of the microshutters."""
