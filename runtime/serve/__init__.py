"""Serving by servers that exist: what they load, what they run, and whether they answer right."""
