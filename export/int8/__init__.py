"""INT8: convolutions quantised without training, fine-tuned where asked for, behind a gate."""
