"""Range estimators: statistics are collected once, and each grid then asks for its own clipping range."""
