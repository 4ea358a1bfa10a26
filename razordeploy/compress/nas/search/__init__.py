"""Searches for a subnet: what proposes candidates, what scores them, what they cost."""
