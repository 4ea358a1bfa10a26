"""Plain operations that dynamic ones stand in for, where torch has none."""
