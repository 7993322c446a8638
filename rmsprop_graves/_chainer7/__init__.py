"""Chainer 7 on newer versions of Python and NumPy than it supports. Nothing here depends on the optimizer."""
