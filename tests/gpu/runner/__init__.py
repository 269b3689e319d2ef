"""The runner of tests/gpu: plans, starts both sides, compares, reports. The standard library alone; start at suite.py."""
