"""What is kept of a measurement: result files, the machine, and the published figures."""
