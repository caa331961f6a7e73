"""A station: cameras in, verdicts out, and a record of them."""
