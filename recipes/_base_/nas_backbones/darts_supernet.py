"""DARTS's space, under mmrazor's name of it."""

_base_ = ["../../nas/_base_/darts.py"]
