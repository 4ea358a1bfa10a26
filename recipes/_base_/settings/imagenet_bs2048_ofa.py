"""As BigNAS trains; Once-for-All here is trained that way."""

_base_ = ["./imagenet_bs2048_bignas.py"]
