"""What is measured on a machine with a GPU; `benchmarks/device.sh` runs it."""
