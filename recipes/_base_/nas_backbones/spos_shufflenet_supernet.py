"""SPOS's space over ShuffleNetV2, under mmrazor's name of it."""

_base_ = ["../../nas/_base_/spos_shufflenet.py"]
