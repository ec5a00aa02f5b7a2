"""What is measured on the cube of a galaxy: lines, noise, rotation, metals, dust."""
