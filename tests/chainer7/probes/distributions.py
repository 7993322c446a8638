"""Calls of every method and property of every distribution, and of the divergences between distributions."""

from __future__ import annotations

import chainer
import chainer.distributions as D
import numpy

from .inputs import FLOATS, bits, definite, flags, fractions, h, labels, normal, positive, words

DTYPES = FLOATS
VALUES = ("prob", "log_prob", "cdf", "log_cdf", "icdf", "survival_function", "log_survival_function", "perplexity")
MOMENTS = ("mean", "variance", "stddev", "entropy", "mode", "covariance", "support", "batch_shape", "event_shape")
MOMENTS += ("params",)


def _asked(ask):
    """Returns the result or the name of the exception, because Chainer does not implement many methods."""
    try:
        return ask()
    except Exception as error:
        return f"raises {type(error).__name__}"


def _all(distribution, x, p=None):
    """Returns the results of every method and property."""
    found = {name: _asked(lambda name=name: getattr(distribution, name)) for name in MOMENTS}
    for name in VALUES:
        found[name] = _asked(lambda name=name: getattr(distribution, name)(p if name == "icdf" else x))
    return found


def _drawn(distribution):
    return [_asked(lambda shape=shape: distribution.sample(shape)) for shape in ((), (3,), 2)]


def _probed(make, values, **parameters):
    """Probes of a distribution whose parameters are arrays, scalars, and numbers in every form."""
    a, b = (*parameters.values(), *parameters.values())[:2]

    def made(a, b):
        return make(a, b) if len(parameters) == 2 else make(a)

    return (
        lambda a=a[2, 3], b=b[2, 3], x=values[2, 3], p=fractions[2, 3]: _all(made(a, b), x, p),
        lambda a=a[()], b=b[()], x=values[()], q=fractions[()]: _all(made(a, b), x, q),
        lambda a=a[2, 3], b=b[2, 3]: _drawn(made(a, b)),
        lambda a=a[()], b=b[()]: _drawn(made(a, b)),
        lambda a=a[3], b=b[3], c=a[3], d=b[3]: _asked(lambda: chainer.kl_divergence(made(a, b), made(c, d))),
        lambda x=values[2, 3], h=h: _asked(lambda: _all(made(h(0.5), h(1.25)), x)),
    )


def _normalized(x):
    return x / chainer.functions.broadcast_to(chainer.functions.sum(x, axis=1, keepdims=True), x.shape)


def _lower(a):
    return a * numpy.tril(numpy.ones(a.shape, a.dtype))


PROBES = {
    "chainer.distributions": {
        "Bernoulli": (
            *_probed(D.Bernoulli, flags.raw, p=fractions),
            lambda logit=normal[2, 3], x=flags.raw[2, 3]: _all(D.Bernoulli(logit=logit), x),
            lambda p=fractions[2, 3], x=bits.raw[2, 3]: _all(D.Bernoulli(p, binary_check=True), x),
        ),
        "Beta": _probed(D.Beta, fractions, a=positive, b=positive),
        "Categorical": (
            lambda p=fractions[2, 3], x=labels[2]: _all(D.Categorical(_normalized(p)), x),
            lambda p=fractions[2, 3]: _drawn(D.Categorical(_normalized(p))),
            lambda logit=normal[2, 3], x=labels[2]: _all(D.Categorical(logit=logit), x),
            lambda p=fractions[2, 3], q=fractions[2, 3]: chainer.kl_divergence(
                D.Categorical(_normalized(p)), D.Categorical(_normalized(q))
            ),
        ),
        "Cauchy": _probed(D.Cauchy, normal, loc=normal, scale=positive),
        "Chisquare": (*_probed(D.Chisquare, positive, k=positive),),
        "Dirichlet": (
            lambda alpha=positive[2, 3], x=fractions[2, 3]: _all(D.Dirichlet(alpha), _normalized(x)),
            lambda alpha=positive[2, 3]: _drawn(D.Dirichlet(alpha)),
            lambda a=positive[2, 3], b=positive[2, 3]: chainer.kl_divergence(D.Dirichlet(a), D.Dirichlet(b)),
        ),
        "Exponential": _probed(D.Exponential, positive, lam=positive),
        "Gamma": _probed(D.Gamma, positive, k=positive, theta=positive),
        "Geometric": _probed(D.Geometric, positive, p=fractions),
        "Gumbel": _probed(D.Gumbel, normal, loc=normal, scale=positive),
        "Independent": (
            lambda loc=normal[2, 3], scale=positive[2, 3], x=normal[2, 3]: _all(
                D.Independent(D.Normal(loc, scale), 1), x
            ),
            lambda loc=normal[2, 3], scale=positive[2, 3]: _drawn(D.Independent(D.Normal(loc, scale))),
            lambda a=normal[2, 3], b=positive[2, 3], c=normal[2, 3], d=positive[2, 3]: chainer.kl_divergence(
                D.Independent(D.Normal(a, b), 1), D.Independent(D.Normal(c, d), 1)
            ),
        ),
        "Laplace": _probed(D.Laplace, normal, loc=normal, scale=positive),
        "LogNormal": _probed(D.LogNormal, positive, mu=normal, sigma=positive),
        "MultivariateNormal": (
            lambda loc=normal[2, 3], a=definite[2, 3, 3], x=normal[2, 3]: _all(
                D.MultivariateNormal(loc, scale_tril=_lower(a)), x
            ),
            lambda loc=normal[2, 3], a=definite[2, 3, 3]: _drawn(D.MultivariateNormal(loc, scale_tril=_lower(a))),
            lambda a=normal[2, 3], b=definite[2, 3, 3], c=normal[2, 3], d=definite[2, 3, 3]: chainer.kl_divergence(
                D.MultivariateNormal(a, scale_tril=_lower(b)), D.MultivariateNormal(c, scale_tril=_lower(d))
            ),
        ),
        "Normal": (
            *_probed(D.Normal, normal, loc=normal, scale=positive),
            lambda loc=normal[2, 3], s=normal[2, 3], x=normal[2, 3]: _all(D.Normal(loc, log_scale=s), x),
        ),
        "OneHotCategorical": (
            lambda p=fractions[2, 3], t=labels[2]: _all(
                D.OneHotCategorical(_normalized(p)), numpy.eye(3, dtype=p.dtype)[t]
            ),
            lambda p=fractions[2, 3]: _drawn(D.OneHotCategorical(_normalized(p))),
        ),
        "Pareto": _probed(D.Pareto, positive, scale=positive, alpha=positive),
        "Poisson": _probed(D.Poisson, positive, lam=positive),
        "Uniform": (
            *_probed(lambda low, size: D.Uniform(low=low, high=low + size), normal, low=normal, size=positive),
            lambda loc=normal[2, 3], scale=positive[2, 3], x=normal[2, 3]: _all(D.Uniform(loc=loc, scale=scale), x),
        ),
    },
}

NEEDS = {
    f"chainer.distributions.{name}": "scipy"
    for name in words("Beta Chisquare Dirichlet Gamma Gumbel Independent MultivariateNormal Normal Poisson")
}
