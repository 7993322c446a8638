"""Calls of everything public in Chainer, compared with what they gave on the stack that Chainer was written for.

``python -m chainer7.probes``, on that stack, makes the record.
"""
