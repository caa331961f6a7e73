"""What a bundle is: one file with graph, engines, thresholds, golden images and their hashes."""
