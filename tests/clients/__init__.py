"""Third-party programs that train with this optimizer; ``python -m clients`` compares each with Chainer's class."""
