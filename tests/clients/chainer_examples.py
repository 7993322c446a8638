"""The models of three examples in Chainer's documentation, rewritten for data that installed packages contain."""

from __future__ import annotations

import tempfile
from pydoc_data.topics import topics

import chainer
import chainer.functions as F
import chainer.links as L
import numpy
from chainer import distributions as D
from chainer.training import extensions, updaters

STREAMS = 20  # number of positions in the text that are read in parallel
STEPS = 20  # words of each stream per update: the length of truncated backpropagation


def digits():
    """Scikit-learn's 1,797 handwritten digits: images of 64 pixels from 0 to 1, and their labels."""
    # Imported here, because the language model can be trained without scikit-learn.
    from sklearn.datasets import load_digits

    x, t = load_digits(return_X_y=True)
    return (x / 16).astype("f"), t.astype("i")


def mnist_mlp(optimizer, updates=200):
    """Classifies digits by three fully connected layers, with an evaluation and a log of each epoch."""
    images = chainer.datasets.TupleDataset(*digits())
    train, test = chainer.datasets.split_dataset_random(images, len(images) * 4 // 5, seed=0)
    predictor = chainer.Sequential(L.Linear(1000), F.relu, L.Linear(1000), F.relu, L.Linear(10))
    optimizer.setup(L.Classifier(predictor))
    updater = updaters.StandardUpdater(chainer.iterators.SerialIterator(train, 100), optimizer)
    test_iterator = chainer.iterators.SerialIterator(test, 100, repeat=False, shuffle=False)
    evaluator = extensions.Evaluator(test_iterator, optimizer.target)
    return run_trainer(updater, updates, [evaluator, extensions.LogReport()])


class LanguageModel(chainer.Chain):
    """Scores the next word by two LSTMs, which keep their state from call to call."""

    def __init__(self, n_words, n_units):
        """Makes the layers, with parameters uniform between -0.1 and 0.1."""
        super().__init__()
        with self.init_scope():
            self.embed = L.EmbedID(n_words, n_units)
            self.l1 = L.LSTM(n_units, n_units)
            self.l2 = L.LSTM(n_units, n_units)
            self.l3 = L.Linear(n_units, n_words)
        for param in self.params():
            param.array[...] = numpy.random.uniform(-0.1, 0.1, param.shape)

    def forward(self, x):
        """Takes one word of each stream."""
        h = self.l1(F.dropout(self.embed(x)))
        h = self.l2(F.dropout(h))
        return self.l3(F.dropout(h))


class BPTTUpdater(updaters.StandardUpdater):
    """Updates after a number of time steps, and truncates backpropagation there."""

    def update_core(self):
        """Makes one update."""
        optimizer = self.get_optimizer("main")
        loss = 0
        for _ in range(STEPS):
            loss += optimizer.target(*self.converter(self.get_iterator("main").next(), self.device))
        optimizer.target.cleargrads()
        loss.backward()
        loss.unchain_backward()
        optimizer.update()


def ptb_lstm(optimizer, updates=100, units=200):
    """Predicts the next word of Python's help on its topics, with dropout and clipped gradients."""
    words = " ".join(topics[name] for name in sorted(topics)).split()[:5_000]
    vocabulary, ids = numpy.unique(words, return_inverse=True)
    # Successive batches continue each stream.
    streams = ids.astype("i")[: len(ids) // STREAMS * STREAMS].reshape(STREAMS, -1)
    pairs = chainer.datasets.TupleDataset(streams[:, :-1].T.ravel(), streams[:, 1:].T.ravel())
    model = L.Classifier(LanguageModel(len(vocabulary), units))
    model.compute_accuracy = False
    optimizer.setup(model)
    optimizer.add_hook(chainer.optimizer_hooks.GradientClipping(5))
    iterator = chainer.iterators.SerialIterator(pairs, STREAMS, shuffle=False)
    return run_trainer(BPTTUpdater(iterator, optimizer), updates)


class Encoder(chainer.Chain):
    """The distribution of the latent variables for a given image."""

    def __init__(self, n_hidden, n_latent):
        """Makes the layers."""
        super().__init__()
        with self.init_scope():
            self.hidden = L.Linear(n_hidden)
            self.mean = L.Linear(n_latent)
            self.log_scale = L.Linear(n_latent)

    def forward(self, x):
        """Takes a batch of images."""
        h = F.tanh(self.hidden(x))
        return D.Independent(D.Normal(self.mean(h), log_scale=self.log_scale(h)))


class Decoder(chainer.Chain):
    """The distribution of the image for given latent variables."""

    def __init__(self, n_hidden, n_pixels):
        """Makes the layers."""
        super().__init__()
        with self.init_scope():
            self.hidden = L.Linear(n_hidden)
            self.output = L.Linear(n_pixels)

    def forward(self, z):
        """Takes samples of a batch, shape (samples, batch, latent)."""
        h = F.tanh(self.hidden(z, n_batch_axes=2))
        return D.Independent(D.Bernoulli(logit=self.output(h, n_batch_axes=2)))


class NegativeELBO(chainer.Chain):
    """The loss of a variational autoencoder: the evidence lower bound, with its sign changed."""

    def __init__(self, n_pixels, n_hidden=500, n_latent=20):
        """Makes the encoder and the decoder."""
        super().__init__()
        self.n_latent = n_latent
        with self.init_scope():
            self.encoder = Encoder(n_hidden, n_latent)
            self.decoder = Decoder(n_hidden, n_pixels)

    def forward(self, x):
        """Returns the mean loss of a batch of images."""
        posterior = self.encoder(x)
        zeros = self.xp.zeros((len(x), self.n_latent), "f")
        prior = D.Independent(D.Normal(zeros, log_scale=zeros))
        z = posterior.sample(1)
        reconstruction = F.mean(self.decoder(z).log_prob(F.broadcast_to(x, (1, *x.shape))))
        return F.mean(chainer.kl_divergence(posterior, prior)) - reconstruction


def vae(optimizer, updates=300):
    """Trains a variational autoencoder on the digits in black and white, with Chainer's distributions."""
    images = (digits()[0] >= 0.5).astype("f")
    optimizer.setup(NegativeELBO(images.shape[1]))
    updater = updaters.StandardUpdater(chainer.iterators.SerialIterator(images, 100), optimizer)
    return run_trainer(updater, updates)


def run_trainer(updater, updates, trainer_extensions=()):
    """Trains for a number of updates, and returns the optimizer."""
    with tempfile.TemporaryDirectory() as out:
        trainer = chainer.training.Trainer(updater, (updates, "iteration"), out)
        for extension in trainer_extensions:
            trainer.extend(extension)
        trainer.run()
    return updater.get_optimizer("main")
