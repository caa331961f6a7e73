"""What people see of a run: results, pictures, and lines on the terminal."""
