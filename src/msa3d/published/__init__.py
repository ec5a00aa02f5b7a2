"""The algorithm of the paper, as published."""
