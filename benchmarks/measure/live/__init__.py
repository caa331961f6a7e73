"""A station under load: cameras, a broker and a disk that fail, and what became of each frame."""
