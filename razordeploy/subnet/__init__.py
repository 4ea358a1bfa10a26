"""Supernets and their subnets: mutables, dynamic ops, channel units, mutators, and how a subnet is fixed and sliced."""
