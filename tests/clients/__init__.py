"""Programs of others that train with this optimizer; ``python -m clients`` holds each to Chainer's class."""
