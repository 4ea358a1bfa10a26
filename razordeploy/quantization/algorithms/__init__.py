"""Algorithms that lessen the loss of post-training quantization; each changes a draft of one backend's model."""
