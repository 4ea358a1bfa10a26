"""Modules that run at the width, kernel, depth or size which their mutables choose."""
