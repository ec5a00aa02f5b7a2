"""What is measured on the cubes: lines, velocities, and how well a known truth comes back."""
