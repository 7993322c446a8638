"""Calls of every public name of Chainer, whose results are compared with a record.

``python -m chainer7.probes`` makes the record, on the stack that Chainer was written for: Python 3.8, NumPy 1.22.
"""
