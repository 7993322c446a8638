"""The four lines of the rule, once for each kind of array.

Every kernel takes plain arrays through one signature,
``step(param, grad, n, g, delta, *, lr, alpha, momentum, eps)``, and knows nothing of Chainer.
"""
