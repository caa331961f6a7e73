"""What a choice is worth: ablations and other methods, each run by hand."""
