"""Probes: functions that call the public names of Chainer. A test compares their results with a record.

``python -m chainer7.probes`` makes the record on the versions that Chainer was written for: Python 3.8, NumPy 1.22.
"""
