"""Log templates, per-minute features, detectors that explain themselves, and how good they are on whose logs."""
