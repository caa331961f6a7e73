"""Many models at once: products and seeds trained, exported and measured on Ray."""
