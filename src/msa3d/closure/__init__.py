"""What came back of a truth that was injected."""
