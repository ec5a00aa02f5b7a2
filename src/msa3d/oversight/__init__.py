"""Looking at a run from outside: what it will need, how far it is, whether what it made still holds."""
