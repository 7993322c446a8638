"""The allowed difference between a result and the record, for each cause of a difference.

Each bound is at least twice the largest difference that was measured on NumPy 2.5 with Python 3.13 to 3.15, and on
the reference stack with the vector instructions of older CPUs. The comparison must find a dtype that is too
narrow or too wide: the results then differ by thousands of units.
"""

from __future__ import annotations

from typing import NamedTuple


class Bound(NamedTuple):
    """The allowed difference: units in the last place of the element, plus units of the array's largest element."""

    element: int
    array: int = 0
    dtype: str = ""  # the units are of this dtype; "" means the dtype of the result


# The operations of IEEE 754 in the same order. A library may round the last bit the other way.
ARITHMETIC = Bound(1)
# Elementary functions such as exp and log, from the C library, NumPy's vector code or SciPy, alone or a few combined.
ELEMENTARY = Bound(10)
# Sums by BLAS or NumPy. Their order depends on the CPU, and terms may cancel.
SUMS = Bound(8, 32)
# Sums of sums, through layers, time steps or decompositions.
CHAINS = Bound(8, 256)
# float16 is summed in float32 and rounded once.
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
# On NumPy 1 the product of two numpy.float32 is a float32, but with a Python number it is a float64. Hyperparameters
# of type numpy.float32 have float32 precision only, so the results need no more.
_ROUNDED_TO_FLOAT32 = ("chainer.optimizers.", "chainer.optimizer_hooks.GradientLARS", "chainer.reporter.Summary")


def bound_of(name, form="python"):
    """Returns the bound of a name for hyperparameters of one form."""
    path, _, _ = name.rpartition(".")
    bound = _BOUNDS.get(name) or _BOUNDS.get(f"{path}.*") or ARITHMETIC
    if form == "float32" and name.startswith(_ROUNDED_TO_FLOAT32):
        return bound._replace(array=max(bound.array, 32), dtype="float32")
    return bound
