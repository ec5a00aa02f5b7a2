"""The engine: which products are current, what runs, in how many processes, and what is left to do."""
