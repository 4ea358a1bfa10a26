"""SPOS's space over MobileNetV2, under mmrazor's name of it."""

_base_ = ["../../nas/_base_/spos_mobilenet.py"]
