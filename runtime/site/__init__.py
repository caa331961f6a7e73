"""On site: thresholds from the good images of this camera and light, without torch."""
