"""How far from the record a result may be, by the reason why it may be off at all.

Measured on NumPy 2.5 with Python 3.13 to 3.15, and on the reference stack itself with the vector instructions of
older CPUs: each bound is at least twice what was seen. A dtype that is too narrow or too wide, which is what the
comparison is there to find, is off by thousands of units.
"""

from __future__ import annotations

from typing import NamedTuple


class Bound(NamedTuple):
    """In units in the last place: of the element itself, and of the largest element of its array."""

    element: int
    array: int = 0
    dtype: str = ""  # in units of this dtype at least


# The same operations of IEEE 754 in the same order: the last bit is for libraries that round it the other way.
ARITHMETIC = Bound(1)
# exp, log, tan and their like, by the C library, by NumPy's own vector code or by SciPy's, and what is made of few.
ELEMENTARY = Bound(10)
# Sums, by BLAS or by NumPy, in an order that is the CPU's; their terms may cancel.
SUMS = Bound(8, 32)
# Sums of sums, through layers, time steps or decompositions.
CHAINS = Bound(8, 256)
# Of float16 the sums are made in float32 and rounded once.
HALF = Bound(2, 4)

_GROUPS = {
    ELEMENTARY: """
        chainer.functions: arccos arcsin arctan arctan2 arctanh cos cosh digamma elu erf erfc erfcinv erfcx exp expm1
            gumbel_softmax leaky_relu lgamma log log10 log1p log2 log_ndtr ndtr ndtri polygamma rsqrt selu sigmoid sin
            sinh softplus swish zeta
        chainer.Variable: __pow__ __rpow__ backward
        chainer: grad
        chainer.distributions: OneHotCategorical Pareto Uniform
        chainer.training.extensions: ExponentialShift InverseShift PolynomialShift
    """,
    SUMS: """
        chainer.functions: average average_pooling_1d average_pooling_2d average_pooling_3d average_pooling_nd
            batch_det batch_inv batch_l2_norm_squared batch_matmul batch_normalization batch_renormalization
            bernoulli_nll bilinear cholesky contrastive convolution_1d convolution_2d convolution_3d convolution_nd
            cross_covariance deconvolution_1d deconvolution_2d deconvolution_3d deconvolution_nd
            decorrelated_batch_normalization decov deformable_convolution_2d_sampler depthwise_convolution_2d det
            dilated_convolution_2d discriminative_margin_based_clustering_loss einsum erfinv fft
            fixed_batch_normalization fixed_batch_renormalization fixed_decorrelated_batch_normalization forget
            gaussian gaussian_kl_divergence gaussian_nll group_normalization hinge ifft inv layer_normalization linear
            local_convolution_2d local_response_normalization log_softmax logsumexp lstm matmul mean_absolute_error
            mean_squared_error negative_sampling normalize roi_average_align_2d roi_max_align_2d sigmoid_cross_entropy
            simplified_dropconnect slstm softmax softmax_cross_entropy sparse_matmul spatial_transformer_grid
            spatial_transformer_sampler sum tan tanh tensordot tree_lstm triplet
        chainer.distributions: Bernoulli Beta Categorical Cauchy Chisquare Dirichlet Exponential Gamma Geometric
            Gumbel Independent Laplace LogNormal MultivariateNormal Normal Poisson
        chainer: Chain ChainList FunctionHook LinkHook Sequential cross_entropy kl_divergence static_graph
        chainer.initializers: Orthogonal
        chainer.link_hooks: SpectralNormalization WeightStandardization
        chainer.optimizers: *
        chainer.training.updaters: *
        chainermn: MultiNodeChainList create_multi_node_optimizer
        chainermn.links: MultiNodeBatchNormalization create_mnbn_model
        chainer.links.caffe: *
        chainer.exporters.caffe: *
    """,
    CHAINS: """
        chainer.functions: black_out connectionist_temporal_classification crf1d n_step_bigru n_step_bilstm
            n_step_birnn n_step_gru n_step_lstm n_step_rnn
        chainer.links: *
        chainer.optimizer_hooks: GradientLARS
        chainer.optimizers: CorrectedMomentumSGD MomentumSGD NesterovAG RMSprop
        chainermn.links: create_multi_node_n_step_rnn
    """,
}


def _by_name():
    bounds = {}
    for bound, text in _GROUPS.items():
        path = ""
        for word in text.split():
            if word.endswith(":"):
                path = word[:-1]
            else:
                bounds[f"{path}.{word}"] = bound
    return bounds


_BOUNDS = _by_name()
# NumPy 1 made a float32 of a product of two numpy.float32, and a float64 of one and a Python number. What is asked of
# the results is float32's precision, which is all that such a hyperparameter has.
_ROUNDED_TO_FLOAT32 = ("chainer.optimizers.", "chainer.optimizer_hooks.GradientLARS", "chainer.reporter.Summary")


def bound_of(name, form="python"):
    """The bound of a name, where hyperparameters are of that form."""
    path, _, _ = name.rpartition(".")
    bound = _BOUNDS.get(name) or _BOUNDS.get(f"{path}.*") or ARITHMETIC
    if form == "float32" and name.startswith(_ROUNDED_TO_FLOAT32):
        return bound._replace(array=max(bound.array, 32), dtype="float32")
    return bound
