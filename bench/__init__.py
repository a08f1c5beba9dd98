"""Measurements that anyone can run again: ``python -m bench`` (beside the peers), ``python -m bench.calibrate`` (the estimate)."""
