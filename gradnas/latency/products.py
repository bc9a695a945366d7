"""How many multiply-adds a torch operator makes: formulas for those that multiply matrices.

torch's own formulas (`torch.utils.flop_counter`) lack recurrent layers, attention on the CPU,
matrices times vectors, distances and sparse products. A formula is a function of an operator's
positional arguments and of its output.

Legend: B batch, T time, I channels in, O channels out, K kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

Formula = Callable[[Sequence[Any], Any], int]


# ---- matrices ------------------------------------------------------------------------------------


def _is_sparse(matrix: Tensor) -> bool:
    return matrix.layout not in (torch.strided, torch._mkldnn)  # type: ignore[attr-defined]


def _stored(matrix: Tensor) -> int:
    """How many values a sparse tensor holds, zeros among them included."""
    if matrix.layout is torch.sparse_coo:
        return matrix._nnz()
    return matrix.values().numel()


def _sparse_by_sparse(left: Tensor, right: Tensor) -> int:
    """Every stored value (i, k) meets every stored value (k, j)."""
    places_left = left.to_sparse_coo().coalesce().indices()
    places_right = right.to_sparse_coo().coalesce().indices()
    inner_size = left.shape[-1]
    in_column = torch.bincount(places_left[1], minlength=inner_size)
    in_row = torch.bincount(places_right[0], minlength=inner_size)
    return int((in_column * in_row).sum())


def _product(left: Tensor, right: Tensor) -> int:
    """Of `left @ right`: matrices, batches of matrices, or a vector on the right."""
    columns = 1 if right.dim() == 1 else right.shape[-1]
    if _is_sparse(left) and _is_sparse(right):
        return _sparse_by_sparse(left, right)
    if _is_sparse(left):
        return _stored(left) * columns
    if _is_sparse(right):
        return left.shape[-2] * _stored(right)
    return left.numel() * columns


def _product_of_two(args: Sequence[Any], out: Any) -> int:
    return _product(args[0], args[1])


def _product_added(args: Sequence[Any], out: Any) -> int:
    # The term that the product is added to counts as nothing, as a bias does.
    return _product(args[1], args[2])


def _product_where_stored(args: Sequence[Any], out: Any) -> int:
    """A product of which only the places of a sparse matrix are computed."""
    places, left, *_ = args
    return _stored(places) * left.shape[-1]


def _dot(args: Sequence[Any], out: Any) -> int:
    return args[0].numel()


def _outer_product_added(args: Sequence[Any], out: Any) -> int:
    _, left, right, *_ = args
    return left.numel() * right.numel()


def _trilinear(args: Sequence[Any], out: Any) -> int:
    """Of `nn.Bilinear` `B * O * I1 * I2`: the values of the threefold product before its sum."""
    shapes = []
    for factor, new_dimensions in zip(args[:3], args[3:6], strict=True):
        shape = list(factor.shape)
        for dimension in new_dimensions:
            shape.insert(dimension, 1)
        shapes.append(shape)
    return prod(torch.broadcast_shapes(*shapes))


def _distances(args: Sequence[Any], out: Any) -> int:
    """Each distance is a sum over the coordinates."""
    return out.numel() * args[0].shape[-1]


def _bags(args: Sequence[Any], out: Any) -> int:
    """Sums of rows are additions; with a weight for each row they are a sparse product."""
    table, indices = args[:2]
    weights = args[6] if len(args) > 6 else None
    return 0 if weights is None else indices.numel() * table.shape[-1]


# ---- layers --------------------------------------------------------------------------------------


def _convolution(args: Sequence[Any], out: Any) -> int:
    """Each output value is a sum over the weights `(I / groups, K ...)` of its channel."""
    return out.numel() * prod(args[1].shape[1:])


def _any_convolution(args: Sequence[Any], out: Any) -> int:
    x, weight = args[:2]
    is_transposed = args[6]
    # A transposed one spreads each input value over the weights of its channel.
    values = x if is_transposed else out
    return values.numel() * prod(weight.shape[1:])


def _convolution_in_time(args: Sequence[Any], out: Any) -> int:
    weight_KIO = args[1]
    return out.numel() * prod(weight_KIO.shape[:2])


def _attention(args: Sequence[Any], out: Any) -> int:
    """The two products of attention, q k^T and its softmax times v, masked or not."""
    q, k, v = args[:3]
    num_queries = prod(q.shape[:-1])  # of all heads
    num_keys = k.shape[-2]
    return num_queries * num_keys * (q.shape[-1] + v.shape[-1])


def _attention_layer(args: Sequence[Any], out: Any) -> int:
    """The fused `nn.MultiheadAttention`: projections of query, key, value and output, attention."""
    q_BTI, k_BSI, v_BSI, width = args[:4]
    tokens = [prod(x.shape[:2]) for x in (q_BTI, k_BSI, v_BSI)]
    projections = (sum(tokens) + tokens[0]) * width * width
    return projections + 2 * tokens[0] * k_BSI.shape[1] * width


def _encoder_layer(args: Sequence[Any], out: Any) -> int:
    """The fused `nn.TransformerEncoderLayer`: attention to itself, and two linear layers."""
    x_BTI, width = args[:2]
    linear = prod(x_BTI.shape[:2]) * (args[14].numel() + args[16].numel())
    return _attention_layer((x_BTI, x_BTI, x_BTI, width), out) + linear


def _steps_by_matrices(x: Tensor, weights: Sequence[Tensor]) -> int:
    """Every step of every sequence is multiplied with every matrix; biases are vectors."""
    num_steps = prod(x.shape[:-1])  # of (T, B, I), or packed (steps, I)
    return num_steps * sum(weight.numel() for weight in weights if weight.dim() == 2)


def _recurrent_layer(args: Sequence[Any], out: Any) -> int:
    x_TBI, w_input, w_state = args[:3]
    return _steps_by_matrices(x_TBI, (w_input, w_state))


def _recurrent_layers(args: Sequence[Any], out: Any) -> int:
    return _steps_by_matrices(args[0], args[1])


def _recurrent_layers_of_mps(args: Sequence[Any], out: Any) -> int:
    return _steps_by_matrices(args[0], args[2])


# ---- by operator ---------------------------------------------------------------------------------

_NAMES: dict[Formula, str] = {
    _product_of_two: """
        mm bmm mv _int_mm _scaled_mm hspmm _sparse_sparse_matmul _sparse_mm_reduce_impl""",
    _product_added: "addmm _addmm_activation baddbmm addbmm addmv _sparse_addmm sspaddmm",
    _product_where_stored: "sparse_sampled_addmm",
    _dot: "dot vdot",
    _outer_product_added: "addr",
    _trilinear: "_trilinear",
    _distances: "_cdist_forward _euclidean_dist _pdist_forward",
    _bags: "_embedding_bag _embedding_bag_forward_only",
    _any_convolution: "convolution _convolution convolution_overrideable",
    _convolution: """
        mkldnn_convolution cudnn_convolution cudnn_convolution_relu cudnn_convolution_add_relu
        miopen_convolution miopen_convolution_relu miopen_convolution_add_relu
        miopen_depthwise_convolution _conv_depthwise2d conv_depthwise3d _slow_conv2d_forward
        slow_conv3d_forward slow_conv_dilated2d slow_conv_dilated3d _nnpack_spatial_convolution
        _mps_convolution""",
    _convolution_in_time: "conv_tbc",
    _attention: """
        _scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention
        _scaled_dot_product_efficient_attention _scaled_dot_product_cudnn_attention
        _scaled_dot_product_fused_attention_overrideable
        _scaled_dot_product_attention_math_for_mps""",
    _attention_layer: "_native_multi_head_attention",
    _encoder_layer: "_transformer_encoder_layer_fwd",
    _recurrent_layer: "mkldnn_rnn_layer",
    _recurrent_layers: "_cudnn_rnn miopen_rnn",
    _recurrent_layers_of_mps: "_lstm_mps",
}


def _formulas() -> dict[str, Formula]:
    formulas = {}
    for formula, names in _NAMES.items():
        for name in names.split():
            formulas[f"aten::{name}"] = formula
    return formulas


FORMULAS = _formulas()

# ---- operators that make none --------------------------------------------------------------------

# A product has two factors: an operator of torch that is given a single tensor moves, reduces or
# maps its values. But for these.
_OF_ONE_TENSOR = ("linalg_", "_linalg_", "_fft_", "cholesky", "geqrf")
_BUT = {
    "linalg_vector_norm",
    "linalg__powsum",
    "linalg_cross",
    "_linalg_check_errors",
}

# Operators of several tensors that only move, compare, reduce or map values. What torch tags as
# pointwise needs no name here.
_FREE_NAMES = """
    _add_relu _batch_norm_no_update _batch_norm_with_update _batch_norm_with_update_functional
    _chunk_cat _convert_indices_from_csr_to_coo _copy_from _copy_from_and_resize _ctc_loss
    _cudnn_ctc_loss _cummax_helper _cummin_helper _dirichlet_grad
    _fake_quantize_learnable_per_channel_affine _fake_quantize_learnable_per_tensor_affine
    _fake_quantize_per_tensor_affine_cachemask_tensor_qparams _functional_assert_async
    _fused_moving_avg_obs_fq_helper _fused_moving_avg_obs_fq_helper_functional _fused_rms_norm
    _fused_sdp_choice _grid_sampler_2d_cpu_fallback _has_same_storage_numel
    _histogramdd_bin_edges _histogramdd_from_bin_cts _histogramdd_from_bin_tensors
    _index_put_impl _jagged_to_padded_dense_forward _make_per_channel_quantized_tensor
    _masked_scale _masked_softmax _native_batch_norm_legit _native_batch_norm_legit_functional
    _native_batch_norm_legit_no_training _nested_from_padded _nested_from_padded_tensor
    _nested_tensor_from_mask _nested_tensor_from_mask_left_aligned
    _nested_tensor_from_tensor_list _nested_view_from_buffer _nested_view_from_jagged
    _pack_padded_sequence _padded_dense_to_jagged_forward _prelu_kernel
    _sparse_coo_tensor_with_dims_and_tensors _sparse_mask_projection _spdiags _stack
    _standard_gamma_grad _thnn_fused_gru_cell _thnn_fused_lstm_cell _transform_bias_rescale_qkv
    _unsafe_index _unsafe_index_put _unsafe_masked_index _unsafe_masked_index_put_accumulate
    _use_cudnn_ctc_loss _use_miopen_ctc_loss _validate_compressed_sparse_indices
    _weight_norm_interface allclose as_strided_scatter batch_norm_elemt batch_norm_gather_stats
    batch_norm_gather_stats_with_counts batch_norm_update_stats bernoulli binary_cross_entropy
    binary_cross_entropy_with_logits bincount binomial block_diag bucketize cat complex copy
    copy_sparse_to_sparse copysign cudnn_batch_norm cudnn_grid_sampler dequantize
    diagonal_scatter dist embedding embedding_renorm eq equal
    fake_quantize_per_channel_affine_cachemask fill floor_divide fractional_max_pool2d
    fractional_max_pool3d gather gcd ge glu_jvp grid_sampler_2d grid_sampler_3d gt heaviside
    histogram huber_loss index index_add index_copy index_fill index_put index_reduce
    index_select is_same_size is_set_to isin lcm le linalg_cross linspace logspace lt lu_unpack
    masked_fill masked_scatter masked_select max_unpool2d max_unpool3d miopen_batch_norm
    miopen_ctc_loss mse_loss multi_margin_loss multilabel_margin_loss_forward native_batch_norm
    native_group_norm native_layer_norm ne nll_loss2d_forward nll_loss_forward normal polar put
    quantize_per_channel quantize_per_tensor quantized_batch_norm randint_like resize_as
    resize_as_sparse rrelu_with_noise rrelu_with_noise_functional rsub scatter scatter_add
    scatter_reduce searchsorted segment_reduce select_scatter set slice_inverse slice_scatter
    smooth_l1_loss soft_margin_loss sparse_compressed_tensor sparse_mask stack take where
"""
_FREE = set(_FREE_NAMES.split())

# Other libraries' operators that crop, pool or talk.
_FREE_ELSEWHERE = {
    "torchvision::nms",
    "torchvision::roi_align",
    "torchvision::roi_pool",
    "torchvision::ps_roi_align",
    "torchvision::ps_roi_pool",
}
_FREE_LIBRARIES = {"prim", "c10d", "_c10d_functional", "rngprims"}


def makes_none(operator: Any, num_tensors: int) -> bool:
    """Whether an operator is known to make no multiply-adds, given so many tensors."""
    library, _, name = operator._schema.name.partition("::")
    if library in _FREE_LIBRARIES or f"{library}::{name}" in _FREE_ELSEWHERE:
        return True
    if library != "aten":
        return False  # whatever its tags say: a library's operator may do anything
    if torch.Tag.pointwise in operator.tags or operator.is_view:
        return True
    name = name.removesuffix("_")  # the form that works in place
    if name in _FREE or name in _BUT:
        return True
    is_for_many = name.startswith("_foreach_") and name != "_foreach_mm"
    if is_for_many:
        return True
    return num_tensors < 2 and not name.startswith(_OF_ONE_TENSOR)
