"""Chainer 7 on Pythons and NumPys that it never knew: knows nothing of the optimizer."""
