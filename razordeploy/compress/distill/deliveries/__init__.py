"""Deliveries hand what one model computed to the next one that asks for it."""
