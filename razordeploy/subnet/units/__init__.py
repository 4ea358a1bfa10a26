"""Groups of channels that are kept or removed together."""
