"""What is measured: accuracy, time and memory."""
