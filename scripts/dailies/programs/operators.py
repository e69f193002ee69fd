"""Operators that compute on tensors, numbers and text and do nothing else: what a program may be made of."""


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


OPERATORS = words(
    """
    abs absolute acos acosh add addcdiv addcmul amax amin aminmax angle arccos arccosh arcsin arcsinh arctan arctan2
    arctanh asin asinh atan atan2 atanh bitwise_and bitwise_left_shift bitwise_not bitwise_or bitwise_right_shift
    bitwise_xor ceil celu clamp clamp_max clamp_min clip complex conj conj_physical copysign cos cosh deg2rad div divide
    elu eq erf erfc erfinv exp exp2 expm1 fill fix float_power floor floor_divide fmax fmin fmod frac frexp ge gelu glu
    greater greater_equal gt hardshrink hardsigmoid hardswish hardtanh heaviside hypot i0 imag isclose isfinite isin
    isinf isnan isneginf isposinf isreal ldexp le leaky_relu lerp less less_equal lgamma log log10 log1p log2
    log_sigmoid log_sigmoid_forward log_softmax _log_softmax logaddexp logaddexp2 logical_and logical_not logical_or
    logical_xor logit logsumexp lt masked_fill maximum minimum mish mul multiply nan_to_num ne neg negative not_equal
    polar positive pow prelu _prelu_kernel rad2deg real reciprocal relu relu6 remainder round rrelu rsqrt rsub selu sgn
    sigmoid sign signbit silu sin sinc sinh softmax _softmax _safe_softmax softplus softshrink special_erf special_expit
    special_expm1 special_i0 special_log1p special_log_softmax special_logit special_round special_sinc special_softmax
    special_xlogy sqrt square sub subtract tan tanh threshold true_divide trunc where xlogy zero

    all allclose any argmax argmin argsort argwhere count_nonzero cummax cummin cumprod cumsum diff equal frobenius_norm
    histc _is_all_true _is_any_true kthvalue linalg_matrix_norm linalg_norm linalg_vector_norm logcumsumexp max mean
    median min msort nanmean nanmedian nansum nonzero norm nuclear_norm prod quantile sort std std_mean sum sum_to_size
    topk trace unique_consecutive _unique _unique2 var var_mean bucketize searchsorted

    addbmm addmm addmv addr baddbmm bilinear bmm cdist chain_matmul cosine_similarity cross dot einsum ger inner inverse
    kron linalg_cross linalg_det linalg_inv linalg_inv_ex linalg_matmul linalg_multi_dot linalg_solve linalg_vecdot
    linear matmul mm mul mv outer pairwise_distance tensordot _trilinear vdot det

    conv1d conv2d conv3d conv_tbc conv_transpose1d conv_transpose2d conv_transpose3d convolution _convolution
    _convolution_mode _conv_depthwise2d conv_depthwise3d slow_conv_transpose2d thnn_conv2d
    adaptive_avg_pool1d adaptive_avg_pool2d _adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d
    adaptive_max_pool2d avg_pool1d avg_pool2d avg_pool3d max_pool1d max_pool1d_with_indices max_pool2d
    max_pool2d_with_indices max_pool3d max_unpool2d
    batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training
    _native_batch_norm_legit_functional group_norm native_group_norm instance_norm layer_norm
    native_layer_norm rms_norm _fused_rms_norm renorm _weight_norm _weight_norm_interface norm_except_dim
    dropout native_dropout alpha_dropout feature_dropout feature_alpha_dropout embedding one_hot
    scaled_dot_product_attention _scaled_dot_product_attention_math _scaled_dot_product_flash_attention
    _scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_efficient_attention _native_multi_head_attention
    _transformer_encoder_layer_fwd

    upsample_bicubic2d upsample_bilinear2d upsample_linear1d upsample_nearest1d upsample_nearest2d upsample_nearest3d
    upsample_trilinear3d _upsample_bicubic2d_aa _upsample_bilinear2d_aa _upsample_lanczos2d_aa _upsample_nearest_exact1d
    _upsample_nearest_exact2d _upsample_nearest_exact3d grid_sampler grid_sampler_2d grid_sampler_3d
    affine_grid_generator pixel_shuffle pixel_unshuffle channel_shuffle native_channel_shuffle im2col col2im unfold
    constant_pad_nd pad reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d
    replication_pad3d _pad_circular _pad_enum

    adjoint alias alias_copy as_strided as_strided_copy atleast_1d atleast_2d atleast_3d block_diag broadcast_tensors
    broadcast_to cartesian_prod cat chunk clone column_stack combinations concat concatenate contiguous copy detach
    detach_copy diag diag_embed diagonal diagonal_copy diagonal_scatter dsplit dstack expand expand_as expand_copy
    flatten flip fliplr flipud gather hsplit hstack index index_add index_copy index_fill index_put index_select
    _unsafe_index lift lift_fresh lift_fresh_copy mH mT masked_scatter masked_select matrix_H meshgrid moveaxis movedim
    narrow narrow_copy numpy_T permute permute_copy ravel repeat repeat_interleave reshape reshape_as resolve_conj
    resolve_neg roll rot90 scatter scatter_add scatter_reduce select select_copy select_scatter slice slice_copy
    slice_scatter split split_copy split_with_sizes split_with_sizes_copy squeeze squeeze_copy stack swapaxes swapdims t
    t_copy take take_along_dim tensor_split tile to _to_copy transpose transpose_copy tril triu type_as unbind
    unbind_copy unflatten unsafe_chunk unsafe_split unsafe_split_with_sizes _unsafe_view unsqueeze unsqueeze_copy view
    view_as view_as_complex view_as_complex_copy view_as_real view_as_real_copy view_copy vsplit vstack
    _cast_Byte _cast_Char _cast_Double _cast_Float _cast_Half _cast_Int _cast_Long _cast_Short

    arange bartlett_window bernoulli blackman_window empty empty_like empty_permuted empty_strided eye full full_like
    hamming_window hann_window kaiser_window linspace logspace new_empty new_empty_strided new_full new_ones new_zeros
    normal normal_functional ones ones_like rand rand_like randint randint_like randn randn_like randperm range
    scalar_tensor tril_indices triu_indices uniform vander zeros zeros_like

    fft_fft fft_fft2 fft_fftfreq fft_fftn fft_fftshift fft_hfft fft_hfft2 fft_ifft fft_ifft2 fft_ifftn fft_ifftshift
    fft_ihfft fft_ihfft2 fft_irfft fft_irfft2 fft_irfftn fft_rfft fft_rfft2 fft_rfftfreq fft_rfftn stft istft

    dim is_complex is_contiguous is_floating_point is_nonzero is_same_size item _local_scalar_dense numel
    _shape_as_tensor size storage_offset stride sym_numel sym_size sym_storage_offset sym_stride sym_constrain_range
    sym_constrain_range_for_size _assert_async _assert_scalar _assert_tensor_metadata _functional_assert_async
    """
)
"""Names in torch.ops.aten, without the underscore of in-place variants, that compute on tensors and do nothing else:
no file (``save``, ``from_file``), no state of the process, no layout whose indices torch does not check. Left out are
those that crashed torch 2.13 when given numbers at random and that it also offers in a checked form."""

LANGUAGE = words(
    """
    Bool Complex ComplexImplicit Float FloatImplicit Int IntImplicit ScalarImplicit Size __and__ __contains__
    __derive_index __getitem__ __interpolate __is__ __isnot__ __lshift__ __not__ __or__ __range_length
    __round_to_zero_floordiv __rshift__ __upsample __upsample_bilinear __upsample_nearest __xor__ _get_tracing_state
    _infer_size _list_to_tensor _set_item _size_if_not_equal _tensor_to_list _unwrap_optional append as_tensor
    broadcast_shapes clear count cpu cuda degrees device dict divmod element_size endswith extend fabs find floordiv
    format gcd get get_autocast_dtype get_device has_torch_function index insert is_autocast_cpu_enabled
    is_autocast_enabled is_grad_enabled is_scripting items join keys len list lower mathremainder pop
    promote_types radians remove replace result_type reverse rstrip set_grad_enabled setdefault sorted startswith str
    strip tensor type_as update upper values warn
    """
)
"""What TorchScript keeps in aten besides operators on tensors: numbers, strings, lists, dicts."""

PRIMITIVES = words(
    """
    Constant ConstantChunk CreateObject DictConstruct Enter EnumName EnumValue Exit GetAttr If ListConstruct ListUnpack
    Loop NumToTensor Print RaiseException SetAttr StringIndex TupleConstruct TupleIndex TupleSlice TupleUnpack
    Uninitialized abs data device dtype index is_cpu is_cuda is_maia is_meta is_mkldnn is_mps is_mtia is_nested
    is_quantized is_sparse is_vulkan is_xla is_xpu isinstance itemsize layout max min nbytes rangelist requires_grad
    tolist type unchecked_cast unchecked_unwrap_optional
    """
)
"""What a TorchScript graph may hold of the namespace prim."""


def harmless(kind: str) -> bool:
    """Whether a node of a TorchScript graph, such as ``aten::add_``, computes and does nothing else."""
    namespace, _, name = kind.partition("::")
    if namespace == "prim":
        return name in PRIMITIVES
    if name.endswith("_") and not name.endswith("__"):
        name = name[:-1]
    return namespace == "aten" and (name in OPERATORS or name in LANGUAGE)
