"""What came back of a truth that was put in."""
