"""From count rates to corrected calibrated slits, with jwst."""
