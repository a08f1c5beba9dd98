"""Measurements that anyone can run again: ``python -m bench.peers``, ``python -m bench.calibrate``, ``python -m bench.wired``."""
