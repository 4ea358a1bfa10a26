"""Hyper-parameter search: a task file, searchers, assessors, and trials on any executor."""
