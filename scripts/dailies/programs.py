"""Programs: networks that a file holds as code and not only as weights, opened so that none of it runs unless trusted.

Three kinds, told apart by content. TorchScript is read twice, as text before it is loaded and as a graph before it
runs, and both times against a list of harmless operators. A torch.export archive never meets torch's own loader, which
unpickles, evaluates and executes what it finds: its graph is JSON and is run here, node by node. ONNX is data to
onnxruntime; only where its nodes and weights come from is checked.
"""

import ast
import io
import json
import logging
import math
import mmap
import operator
import pickle
import pickletools
import re
import stat
import warnings
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor, nn

from dailies.errors import LoadError, RenderError

log = logging.getLogger(__name__)

LARGEST = 16 * 2**30
"""The most bytes that a file may declare to hold once unpacked."""

INFLATION = 8
"""How many times its size on disk a file may declare; weights do not shrink, so real ones stay near 1."""

SLACK = 64 * 2**20
"""Bytes that any file may declare, whatever its size: code shrinks well, and small files hold little else."""

CODE = 8 * 2**20
"""The most bytes of TorchScript code and of its pickles; the trace of a NAFNet of 60 blocks has 0.3 MB."""

DEEPEST = 1000
"""How deep the objects of a TorchScript file may lie within each other; modules within modules take two each."""

SIDE = 512
"""Pixels that are aimed at where a program leaves a size open and still does not take every size."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


OPERATORS = _words(
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
    batch_norm native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training
    _native_batch_norm_legit_functional _batch_norm_no_update group_norm native_group_norm instance_norm layer_norm
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
    fft_ihfft fft_ihfft2 fft_irfft fft_irfft2 fft_irfftn fft_rfft fft_rfft2 fft_rfftfreq fft_rfftn _fft_c2c _fft_c2r
    _fft_r2c stft istft

    dim is_complex is_contiguous is_floating_point is_nonzero is_same_size item _local_scalar_dense numel
    _shape_as_tensor size storage_offset stride sym_numel sym_size sym_storage_offset sym_stride sym_constrain_range
    sym_constrain_range_for_size _assert_async _assert_scalar _assert_tensor_metadata _functional_assert_async
    """
)
"""Names in torch.ops.aten, without the underscore of in-place variants, that compute on tensors and do nothing else:
no file (``save``, ``from_file``), no state of the process, no layout whose indices torch does not check."""

LANGUAGE = _words(
    """
    Bool Complex ComplexImplicit Float FloatImplicit Int IntImplicit ScalarImplicit Size __and__ __contains__
    __derive_index __getitem__ __interpolate __is__ __isnot__ __lshift__ __not__ __or__ __range_length
    __round_to_zero_floordiv __rshift__ __upsample __upsample_bilinear __upsample_nearest __xor__ _get_tracing_state
    _infer_size _list_to_tensor _set_item _size_if_not_equal _tensor_to_list _unwrap_optional append as_tensor
    broadcast_shapes clear count cpu cuda degrees device dict divmod element_size endswith extend fabs find floordiv
    format gcd get get_autocast_dtype get_device has_torch_function index insert is_autocast_cpu_enabled
    is_autocast_enabled is_grad_enabled is_scripting items join keys len list lower mathremainder percentFormat pop
    promote_types radians remove replace result_type reverse rstrip set_grad_enabled setdefault sorted startswith str
    strip tensor type_as update upper values warn
    """
)
"""What TorchScript keeps in aten besides operators on tensors: numbers, strings, lists, dicts."""

PRIMITIVES = _words(
    """
    Constant ConstantChunk CreateObject DictConstruct Enter EnumName EnumValue Exit GetAttr If ListConstruct ListUnpack
    Loop NumToTensor Print RaiseException SetAttr StringIndex TupleConstruct TupleIndex TupleSlice TupleUnpack
    Uninitialized abs data device dtype index is_cpu is_cuda is_maia is_meta is_mkldnn is_mps is_mtia is_nested
    is_quantized is_sparse is_vulkan is_xla is_xpu isinstance itemsize layout max min nbytes rangelist requires_grad
    tolist type unchecked_cast unchecked_unwrap_optional
    """
)
"""What a TorchScript graph may hold of the namespace prim."""

BUILTINS = _words(
    """
    abs annotate bool complex dict divmod enumerate float getattr hasattr int isinstance len list max min print range
    reversed round sorted str sum tuple unchecked_cast uninitialized zip
    """
)
"""What TorchScript code may call by a bare name."""

TEMPORARY = re.compile(r"_\d+", re.ASCII)

GRAMMAR = (
    ast.Module | ast.ClassDef | ast.FunctionDef | ast.arguments | ast.arg | ast.Return | ast.Delete | ast.Assign
    | ast.AugAssign | ast.AnnAssign | ast.For | ast.While | ast.If | ast.With | ast.withitem | ast.Raise | ast.Assert
    | ast.Expr | ast.Pass | ast.Break | ast.Continue | ast.BoolOp | ast.BinOp | ast.UnaryOp | ast.IfExp | ast.Dict
    | ast.ListComp | ast.DictComp | ast.comprehension | ast.Compare | ast.Call | ast.keyword | ast.Attribute
    | ast.Subscript | ast.Starred | ast.Name | ast.List | ast.Tuple | ast.Slice | ast.Constant | ast.expr_context
    | ast.boolop | ast.operator | ast.unaryop | ast.cmpop
)  # fmt: skip

PLAIN = re.compile(
    r"""(?:[\w \n.,:;()\[\]{}=+\-*/%<>!&|^~@]++|"(?:[^"\\\n]|\\.)*+"|'(?:[^'\\\n]|\\.)*+')*+""", re.ASCII
)
"""Code in which strings begin and end where both Python and TorchScript think so, and in which nothing is a comment."""

PICKLED = re.compile(
    r"__torch__(?!\.torch\.classes\.)\..+|torch\.jit\._pickle\.\w+|torch\.\w+Storage|torch\.device|"
    r"torch\._utils\._rebuild_tensor_v2|torch\._utils\._rebuild_parameter|collections\.OrderedDict|"
    r"(?:__builtin__|builtins)\.complex"
)
"""What the pickles of a TorchScript file may name; ``torch.classes`` are C++ objects with loaders of their own."""

SCRIPT_PARTS = re.compile(r"code/.+\.py|(?:data|constants)(?:\.pkl|/\w+)|(?:\.data/)?version|byteorder", re.ASCII)
"""The members of a TorchScript file that torch needs to load it."""

STORAGES = {
    f"torch.{name}Storage": size
    for size, names in {
        1: "Char Byte Bool",
        2: "Half BFloat16 Short",
        4: "Float Int",
        8: "Double Long ComplexFloat",
    }.items()
    for name in names.split()
}
"""Bytes per element."""

DTYPES = {
    1: torch.uint8, 2: torch.int8, 3: torch.int16, 4: torch.int32, 5: torch.int64, 6: torch.float16, 7: torch.float32,
    8: torch.float64, 10: torch.complex64, 11: torch.complex128, 12: torch.bool, 13: torch.bfloat16,
}  # fmt: skip
"""torch._export.serde.schema.ScalarType, which takes a second to import."""

FORMATS = {
    1: torch.contiguous_format, 2: torch.channels_last, 3: torch.channels_last_3d, 4: torch.preserve_format,
}  # fmt: skip

SCHEMA = 8
"""The generation of torch.export's JSON that is understood: torch 2.5 to 2.13, and what follows until it changes."""

PYTHON = {
    f"{module}.{name}": getattr(source, name)
    for module, source, names in (
        ("_operator", operator, "add and_ eq floordiv ge getitem gt le lt mod mul ne neg or_ pos pow sub truediv"),
        ("math", math, "ceil floor sqrt trunc"),
        ("torch", torch, "sym_float sym_int sym_ite sym_max sym_min sym_not sym_sqrt"),
    )
    for name in names.split()
}
"""Arithmetic on sizes."""

SYMBOL = re.compile(r"(?:Mul\(Integer\((\d{1,9})\), )?Symbol\('(\w+)'(?:, \w+=True)*\)\)?")
"""``s`` or ``k*s``, the only sizes whose meaning is taken from torch.export; nothing is evaluated."""

DOMAINS = {"", "ai.onnx"}
"""Operators that every ONNX runtime has and that the standard describes."""

NUMBERS = {"tensor(float)": torch.float32, "tensor(float16)": torch.float16, "tensor(double)": torch.float64}


@dataclass(frozen=True)
class Program:
    """A network that came with its own code."""

    network: nn.Module
    """Takes float32 ``(batch, channels, height, width)``; in evaluation mode, on the CPU. What it gives is as its
    author made it: a tensor, or a tuple, list or dict of them."""
    kind: str
    """torchscript, export or onnx."""
    size: tuple[int, int] | None = None
    """Height and width that the program takes. It takes no other where it is frozen to them; where it leaves some
    freedom but not all (one side frozen, or only squares) this is a size within it. None: any within the bounds."""
    channels: int | None = None
    """What the input must have, where the program tells."""
    batch: int | None = None
    """The only number of images that the program takes at once; None: any."""
    multiple: int = 1
    """Both sides are multiples of this many pixels."""
    least: tuple[int, int] = (1, 1)
    """Height and width, pixels."""
    most: tuple[int | None, int | None] = (None, None)
    """Height and width, pixels; None: no bound."""
    trusted: bool = False
    """Whether the file would have been refused without ``trusted``."""


class _Unsafe(Exception):
    """What in a file could run code or reach beyond it: the rest of a sentence that begins with the file."""


class _Bad(Exception):
    """What is wrong with a file, whoever wrote it: a sentence of its own."""


def is_program(path: Path) -> str | None:
    """Tell by its content which kind of program a file is: torchscript, export, onnx, or None for none of them."""
    if not path.is_file():
        return None
    if zipfile.is_zipfile(path):
        try:
            with zipfile.ZipFile(path) as archive:
                names = set(map(_short, archive.namelist()))
        except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError):
            return None
        if "constants.pkl" in names and any(name.startswith("code/") for name in names):
            return "torchscript"
        if "archive_format" in names or "serialized_exported_program.json" in names:
            return "export"
        return None
    with path.open("rb") as file:
        head = file.read(3)
    # a version below 32, then any of the fields that writers put next
    return "onnx" if re.match(rb"\x08[\x01-\x1f][\x12\x1a\x22\x28\x32\x3a\x42]", head) else None


def open_program(path: Path, *, trusted: bool = False) -> Program:
    """Open a network that is stored as a program; nothing in the file can run code unless ``trusted``.

    Args:
        path: a TorchScript, torch.export or ONNX file; which it is does not depend on its name.
        trusted: open files that are refused otherwise, with loaders that may run code of the file's author.

    Raises:
        LoadError: saying what was found and what to do.
    """
    kind = is_program(path)
    if kind is None:
        raise LoadError(
            f"{path.name} is no program: it is {_described(path)}; expected TorchScript, torch.export or ONNX"
        )
    title = {"torchscript": "a TorchScript", "export": "a torch.export", "onnx": "an ONNX"}[kind]
    opener = {"torchscript": _torchscript, "export": _export, "onnx": _onnx}[kind]
    try:
        try:
            return opener(path)
        except _Unsafe as reason:
            if not trusted:
                raise LoadError(
                    f"{path.name} is {title} program that {reason}; "
                    "set trust_pickle to true only if you trust whoever wrote it"
                ) from None
            log.warning("trust_pickle is set: %s %s, and is loaded; it may run code of its author", path.name, reason)
            return replace(opener(path, trusted=True), trusted=True)
    except LoadError:
        raise
    except _Bad as reason:
        raise LoadError(f"{path.name} is {title} program, but {reason}") from None
    except Exception as error:  # the bytes are anyone's, and every parser below has its own way to say so
        raise LoadError(
            f"{path.name} is {title} program that is damaged or of another version: {_first_line(error)}"
        ) from error


def _described(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(64)
    if not head:
        return "an empty file"
    if head.startswith(b"PK"):
        return "a zip archive without a program" if zipfile.is_zipfile(path) else "a zip archive that is cut off"
    if head.lstrip()[:1] == b"<":
        return "a web page or XML"
    if head.startswith(b"\x80"):
        return "a pickle"
    return f"a file that begins with the bytes {head[:8].hex(' ')}"


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    text = lines[0] if lines else ""
    return f"{type(error).__name__}: {_plain(text, 200)}" if text else type(error).__name__


def _plain(text: str, length: int = 60) -> str:
    """Make a text from a file fit for a log."""
    return "".join(char if char.isprintable() else "�" for char in text[:length])


def _fits_a_log(char: str) -> bool:
    return char.isprintable() or char in "\n\t"


def _short(name: str) -> str:
    """The name of a zip's member without the folder that torch puts all of them in."""
    return name.partition("/")[2] or name


class _Archive:
    """A zip file whose declared sizes have been checked, its members by their short names."""

    def __init__(self, file: Path | io.BytesIO) -> None:
        self._zip = zipfile.ZipFile(file)
        infos = self._zip.infolist()
        size = file.stat().st_size if isinstance(file, Path) else file.getbuffer().nbytes
        declared = sum(info.file_size for info in infos)
        if declared > min(LARGEST, SLACK + INFLATION * size):
            raise _Bad(
                f"{size:,} bytes that declare to hold {declared:,} are no model; "
                f"at most {min(LARGEST, SLACK + INFLATION * size):,} would be read"
            )
        # not only equal ones: torch's reader does not tell upper from lower case
        names = Counter(info.filename.lower() for info in infos)
        if names and names.most_common(1)[0][1] > 1:
            raise _Bad(f"the archive holds '{_plain(names.most_common(1)[0][0])}' more than once")
        self.names = {_short(info.filename): info for info in infos}

    def read(self, name: str) -> bytes:
        if name not in self.names:
            raise _Bad(f"the archive lacks '{_plain(name)}'")
        return self._zip.read(self.names[name])


class _Fed(nn.Module):
    """A program that is given the numbers it was written for."""

    def __init__(self, program: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.program = program
        self.dtype = dtype

    def forward(self, pixels: Tensor) -> Any:
        return self.program(pixels.to(self.dtype))

    def train(self, mode: bool = True) -> nn.Module:
        """Stay as exported: torch's exported modules raise here."""
        return self


def _torchscript(path: Path, *, trusted: bool = False) -> Program:
    archive = _Archive(path)
    source = str(path) if trusted else _checked_copy(archive)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch 2.13 deprecates TorchScript in favour of export
        module = torch.jit.load(source, map_location="cpu")
    if not trusted:
        _check_script_graphs(module)
    if "forward" not in module._c._method_names():
        raise LoadError(f"{path.name} is a TorchScript program without a method 'forward'")
    taken = [argument for argument in module.forward.schema.arguments[1:] if not argument.has_default_value()]
    if len(taken) != 1 or not isinstance(taken[0].type, torch.TensorType):
        names = ", ".join(f"{_plain(argument.name)}: {_plain(str(argument.type))}" for argument in taken)
        raise LoadError(f"the program in {path.name} asks for ({names}); expected one image")
    network = module.eval()
    for parameter in network.parameters():  # the method of modules that does this is missing for TorchScript
        parameter.requires_grad_(parameter.requires_grad and not parameter.is_leaf)
    floats = (value.dtype for value in network.state_dict().values() if value.is_floating_point())
    dtype = next(floats, torch.float32)
    return Program(
        network=network if dtype == torch.float32 else _Fed(network, dtype),
        kind="torchscript",
        channels=_script_channels(module),
    )


def _checked_copy(archive: _Archive) -> io.BytesIO:
    """Copy the parts of a TorchScript file that are needed, each of them checked; torch never reads the file itself.

    Left behind: pickles of source positions and example inputs, and whatever torch's reader, which does not tell
    upper from lower case, might find where the one here does not.
    """
    sizes = {name: info.file_size for name, info in archive.names.items() if SCRIPT_PARTS.fullmatch(name)}
    code = sum(size for name, size in sizes.items() if name.endswith((".py", ".pkl")))
    if code > CODE:
        raise _Bad(f"the program has {code:,} bytes of code; at most {CODE:,} would be read")
    copy = io.BytesIO()
    with zipfile.ZipFile(copy, "w") as target:
        for name in sizes:
            content = archive.read(name)
            if name.endswith(".py"):
                _check_script_text(content.decode("ascii", errors="replace"))
            elif name.endswith(".pkl"):
                _check_script_pickle(content, name.replace(".pkl", "/"), sizes)
            target.writestr(f"model/{name}", content)
    copy.seek(0)
    return copy


def _check_script_text(text: str) -> None:
    """Raise _Unsafe unless the code calls harmless operators only, and runs nothing while it is loaded.

    Loading runs ``__setstate__`` and evaluates the defaults of arguments and constants of classes.
    """
    if not PLAIN.fullmatch(text):
        raise _Unsafe("holds code that torch does not write")
    if "__setstate__" in text:
        raise _Unsafe("runs a method, __setstate__, while it is loaded")
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise _Unsafe(f"holds code that cannot be checked ({type(error).__name__})") from error
    roots: set[int] = set()
    for node in ast.walk(tree):
        if not isinstance(node, GRAMMAR):
            raise _Unsafe(f"holds code that torch does not write ({type(node).__name__})")
        _check_definition(node)
        if isinstance(node, ast.Attribute):
            _check_dotted(node, roots)
        elif isinstance(node, ast.Name) and node.id in ("torch", "ops") and id(node) not in roots:
            raise _Unsafe(f"uses '{node.id}' as a value")
        elif isinstance(node, ast.Call) and not isinstance(node.func, ast.Attribute):
            # torch abbreviates functions of the file itself: _0 = __torch__.net.helper
            if not isinstance(node.func, ast.Name) or not (
                node.func.id in BUILTINS or TEMPORARY.fullmatch(node.func.id)
            ):
                raise _Unsafe(f"calls '{_plain(ast.unparse(node.func))}'")
        elif isinstance(node, ast.Constant) and not all(map(_fits_a_log, str(node.value))):
            raise _Unsafe("holds control characters")


def _check_definition(node: ast.AST) -> None:
    """Raise _Unsafe if a method, a class or the file itself computes something while it is loaded."""
    if isinstance(node, ast.FunctionDef):
        defaults = [*node.args.defaults, *(value for value in node.args.kw_defaults if value is not None)]
        if node.decorator_list or not all(map(_is_literal, defaults)):
            raise _Unsafe("computes the defaults of a method while it is loaded")
    elif isinstance(node, ast.ClassDef):
        if node.decorator_list or node.keywords or not all(map(_is_declaration, node.body)):
            raise _Unsafe("computes the constants of a class while it is loaded")
    elif isinstance(node, ast.Module) and not all(map(_is_declaration, node.body)):
        raise _Unsafe("holds code outside of its classes")


def _check_dotted(node: ast.Attribute, roots: set[int]) -> None:
    """Check ``torch.name``, ``ops.namespace.name`` and ``__torch__.a.b``; note the name that they begin with."""
    names = [node.attr]
    value = node.value
    while isinstance(value, ast.Attribute):
        names.insert(0, value.attr)
        value = value.value
    if not isinstance(value, ast.Name):
        return
    roots.add(id(value))
    match (value.id, *names):
        case ("torch", name) | ("ops", "aten", name) if _is_harmless(name):
            return
        case ("ops", "prim", name) if name in PRIMITIVES:
            return
        case ("ops", "aten" | "prim"):
            return
        case ("torch" | "ops", *_) | ("__torch__", "torch", "classes", *_):
            raise _Unsafe(f"uses {_plain('.'.join((value.id, *names)))}")


def _is_harmless(name: str) -> bool:
    if name.endswith("_") and not name.endswith("__"):
        name = name[:-1]
    return name in OPERATORS or name in LANGUAGE


def _is_literal(node: ast.expr | None) -> bool:
    match node:
        case ast.UnaryOp(op=ast.USub(), operand=value):
            return _is_literal(value)
        case ast.Tuple(elts=values) | ast.List(elts=values):
            return all(map(_is_literal, values))
        case ast.Dict(keys=keys, values=values):
            return all(map(_is_literal, [*keys, *values]))
        case ast.Call(func=ast.Name(id="annotate"), args=[_, value], keywords=[]):
            return _is_literal(value)
        case ast.Call(func=ast.Attribute(value=ast.Name(id="torch"), attr="device"), args=[value], keywords=[]):
            return isinstance(value, ast.Constant)
    constant = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "CONSTANTS"
    number = isinstance(node, ast.Name) and node.id in ("inf", "nan", "infj", "nanj")
    return isinstance(node, ast.Constant) or constant or number


def _is_declaration(node: ast.stmt) -> bool:
    """Whether a statement gives a name a type or a literal, or defines a method or a class."""
    match node:
        case ast.ClassDef() | ast.FunctionDef() | ast.Pass():
            return True
        case ast.AnnAssign(annotation=type_, value=value):
            return _is_type(type_) and (value is None or _is_literal(value))
        case ast.Assign(targets=[ast.Subscript(value=ast.Name(id="__annotations__"))], value=type_):
            return _is_type(type_)
        case ast.Assign(targets=[ast.Name()], value=value):
            return _is_literal(value)
    return False


def _is_type(node: ast.expr) -> bool:
    parts = ast.Name | ast.Attribute | ast.Subscript | ast.Tuple | ast.List | ast.Constant | ast.expr_context
    return all(isinstance(part, parts) for part in ast.walk(node))


class _Held:
    """Stands for an object of a pickle: what it is called, what it is made of, how deep that goes."""

    def __init__(self, items: list[Any], name: str = "") -> None:
        self.name = name
        self.items: list[Any] = []
        self.depth = 0
        self.built = False
        """Whether it is an object of a class, which is given its state and nothing else."""
        self.inside = False
        """Whether another object holds it; it is complete then, or its depth would not be that of its holder."""
        self.add(items)

    def add(self, items: list[Any]) -> None:
        if self.inside:
            raise _Unsafe("holds a pickle that torch does not write (an object that grows)")
        self.items += items
        for item in items:
            if isinstance(item, _Held):
                item.inside = True
                self.depth = max(self.depth, 1 + item.depth)
        if self.depth > DEEPEST:
            raise _Bad(f"the file holds objects within objects, more than {DEEPEST} deep")


SIMPLE = _words("BININT BININT1 BININT2 LONG1 BINFLOAT BINUNICODE NONE")
MADE = {"EMPTY_TUPLE": 0, "EMPTY_LIST": 0, "EMPTY_DICT": 0, "TUPLE": None, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
MADE |= {"BINPERSID": 1, "REDUCE": 2, "NEWOBJ": 2}
"""How many objects are taken to make one; None: all since the last mark."""

FILLED = {"APPEND": 1, "APPENDS": None, "SETITEM": 2, "SETITEMS": None, "BUILD": 1}
"""How many objects are put into the one below them."""


class _Pickle:
    """Follows a TorchScript pickle without making any of its objects, and lists the tensors that it declares."""

    def __init__(self, data: bytes) -> None:
        self.storages: list[list[Any]] = []
        self.tensors: list[list[Any]] = []
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._size = len(data)
        for opcode, argument, _ in pickletools.genops(data):
            self._follow(opcode.name, argument)

    def _follow(self, opcode: str, argument: Any) -> None:
        stack = self._stack
        if opcode in SIMPLE:
            stack.append(argument)
        elif opcode in ("NEWTRUE", "NEWFALSE"):
            stack.append(opcode == "NEWTRUE")
        elif opcode in ("BINPUT", "LONG_BINPUT"):
            if argument > self._size:
                raise _Bad("a pickle in the file declares more objects than it has bytes")
            self._memo[argument] = stack[-1]
        elif opcode in ("BINGET", "LONG_BINGET"):
            stack.append(self._memo[argument])
        elif opcode == "MARK":
            self._marks.append(len(stack))
        elif opcode == "GLOBAL":
            name = argument.replace(" ", ".")
            if not PICKLED.fullmatch(name):
                raise _Unsafe(f"holds an object of {_plain(name)}")
            stack.append(_Held([], name))
        elif opcode in FILLED:
            items = self._taken(FILLED[opcode])
            if stack[-1].built != (opcode == "BUILD"):
                raise _Unsafe("holds a pickle that torch does not write (a state)")
            stack[-1].add(items)
        elif opcode in MADE:
            stack.append(self._made(opcode, self._taken(MADE[opcode])))
        elif opcode not in ("PROTO", "STOP"):
            raise _Unsafe(f"holds a pickle that torch does not write ({opcode})")

    def _made(self, opcode: str, items: list[Any]) -> _Held:
        made = _Held(items)
        if opcode == "BINPERSID":
            self.storages.append(items[0].items)
        elif opcode in ("REDUCE", "NEWOBJ"):
            called, given = items
            # torch has numbers for names, and takes any number for one
            if not called.name or (opcode == "NEWOBJ" and not called.name.startswith("__torch__.")):
                raise _Unsafe("holds a pickle that torch does not write (a call)")
            made.built = opcode == "NEWOBJ"
            if called.name == "torch._utils._rebuild_tensor_v2":
                self.tensors.append(given.items)
        return made

    def _taken(self, count: int | None) -> list[Any]:
        start = self._marks.pop() if count is None else len(self._stack) - count
        if not 0 <= start <= len(self._stack):
            raise _Bad("a pickle in the file is damaged")
        taken = self._stack[start:]
        del self._stack[start:]
        return taken


def _check_script_pickle(data: bytes, folder: str, sizes: Mapping[str, int]) -> None:
    """Raise unless every tensor lies within the bytes that the archive holds for it.

    torch 2.13 believes the pickle and reads beyond them.
    """
    pickled = _Pickle(data)
    for _, kind, key, _, count in pickled.storages:
        if kind.name not in STORAGES:
            raise _Bad(f"a tensor in the file is of the kind {_plain(kind.name)}")
        declared, held = count * STORAGES[kind.name], sizes.get(f"{folder}{key}", 0)
        if declared != held:
            raise _Bad(f"a tensor in the file declares {declared:,} bytes, its record has {held:,}")
    for storage, offset, shape, strides, *_ in pickled.tensors:
        _, kind, _, _, count = storage.items[0].items
        _check_view(shape.items, strides.items, offset, count, STORAGES[kind.name])


def _check_view(shape: Any, strides: Any, offset: int, count: int, itemsize: int) -> None:
    """Raise LoadError unless a view of ``count`` elements stays inside them, and is not much larger than they are."""
    last = offset + sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True))
    inside = min([offset, *shape, *strides]) >= 0 and (last < count or 0 in shape)
    if not inside or math.prod(shape) * itemsize > SLACK + count * itemsize:
        declared = _plain(str(tuple(shape)), 80)
        raise _Bad(f"a tensor in the file declares the shape {declared}, its storage has {count:,} elements")


def _check_script_graphs(module: torch.jit.ScriptModule) -> None:
    """Raise _Unsafe unless the graphs that can run hold harmless operators only.

    This is torch's own reading of the code, after it was loaded and before any of it runs.
    """
    compiled = module._c
    hooks = [*compiled._get_forward_pre_hooks(), *compiled._get_forward_hooks()]
    for method in [*(compiled._get_method(name) for name in compiled._method_names()), *hooks]:
        for kind in _kinds(method.inlined_graph):
            namespace, _, name = kind.partition("::")
            if not (_is_harmless(name) if namespace == "aten" else namespace == "prim" and name in PRIMITIVES):
                raise _Unsafe(f"uses {_plain(kind)}")


def _kinds(block: Any) -> set[str]:
    kinds: set[str] = set()
    for node in block.nodes():
        kinds.add(node.kind())
        for inner in node.blocks():
            kinds |= _kinds(inner)
    return kinds


def _script_channels(module: torch.jit.ScriptModule) -> int | None:
    """The channels of the first convolution, where the image reaches one before anything that could change them."""
    graph = module.forward.inlined_graph  # its values live as long as it does
    value = list(graph.inputs())[1]
    for _ in range(8):
        uses = [use.user for use in value.uses()]
        for node in uses:
            if node.kind() in ("aten::conv2d", "aten::_convolution", "aten::_convolution_mode"):
                _, weight, *rest = node.inputs()
                tensor = _attribute(module, weight)
                groups = rest[-1 if node.kind() != "aten::_convolution" else 6].toIValue()
                return int(tensor.shape[1] * groups) if tensor is not None and isinstance(groups, int) else None
        same = ("aten::pad", "aten::reflection_pad2d", "aten::replication_pad2d", "aten::to", "aten::contiguous")
        onward = [node for node in uses if node.kind() in same]
        if len(onward) != 1:
            return None
        value = next(onward[0].outputs())
    return None


def _attribute(module: torch.jit.ScriptModule, value: Any) -> Tensor | None:
    names = []
    while value.node().kind() == "prim::GetAttr":
        names.append(value.node().s("name"))
        value = next(value.node().inputs())
    found: Any = module if names else value.toIValue()
    for name in reversed(names):
        found = getattr(found, name, None)
    return found if isinstance(found, Tensor) and found.dim() == 4 else None


class _Name(str):
    """The name of a value in a graph."""

    __slots__ = ()


DEVICE = _Name("the device of the image")
"""Where tensors are made: a program names the device of its export, and runs on any."""


class _Graph:
    """A graph of torch.export, read from JSON: every function in it was found in a list of harmless ones."""

    def __init__(self, graph: Mapping[str, Any]) -> None:
        self.inputs = [_named(value) for value in graph["inputs"]]
        self._single = bool(graph.get("is_single_tensor_return"))
        self._outputs = [_argument(value) for value in graph["outputs"]]
        steps = [_step(node) for node in graph["nodes"] if "_assert_tensor_metadata" not in node["target"]]
        self._check({name for name in self.inputs if name}, steps)
        alive = set(_names(self._outputs))
        self._steps = []
        for function, arguments, named, results in reversed(steps):
            used = {*_names(arguments), *_names(list(named.values())), *_names(results)} - {DEVICE}
            self._steps.append((function, arguments, named, results, used - alive))
            alive |= used
        self._steps.reverse()

    def _check(self, known: set[str], steps: list[tuple]) -> None:
        known.add(DEVICE)
        for _, arguments, named, results in steps:
            if unknown := {*_names(arguments), *_names(list(named.values()))} - known:
                raise _Bad(f"the program's graph uses '{_plain(min(unknown))}' before it is computed")
            known |= set(_names(results))
        if unknown := set(_names(self._outputs)) - known:
            raise _Bad(f"the program's graph gives '{_plain(min(unknown))}', which it does not compute")

    def __call__(self, values: list[Any], device: torch.device) -> Any:
        """Run the graph; ``values`` are those of ``inputs``, in their order."""
        known: dict[Any, Any] = dict(zip(self.inputs, values, strict=True))
        known[DEVICE] = device
        for function, arguments, named, results, done in self._steps:
            result = function(
                *[_filled(value, known) for value in arguments],
                **{name: _filled(value, known) for name, value in named.items()},
            )
            _store(results, result, known)
            for name in done:
                del known[name]
        outputs = [_filled(value, known) for value in self._outputs]
        return outputs[0] if self._single else tuple(outputs)


def _filled(value: Any, known: Mapping[Any, Any]) -> Any:
    kind = type(value)
    if kind is _Name:
        return known[value]
    if kind is list:
        return [_filled(item, known) for item in value]
    if kind is _Graph:
        return lambda *values: value(list(values), known[DEVICE])
    return value


def _store(names: Any, value: Any, known: dict[Any, Any]) -> None:
    if type(names) is _Name:
        known[names] = value
    elif type(names) is list:
        for name, item in zip(names, value, strict=True):
            _store(name, item, known)


def _names(value: Any) -> Iterator[_Name]:
    if type(value) is _Name:
        yield value
    elif type(value) is list:
        for item in value:
            yield from _names(item)


def _only(value: Mapping[str, Any]) -> tuple[str, Any]:
    """Take a union of torch.export's JSON apart: its kind, and what it holds."""
    ((kind, content),) = value.items()
    return kind, content


def _named(value: Mapping[str, Any]) -> _Name | None:
    kind, content = _only(value)
    return _Name(content["name"]) if kind == "as_tensor" else None


ARGUMENTS: dict[str, Callable[[Any], Any]] = {
    "as_none": lambda _: None,
    "as_tensor": lambda content: _Name(content["name"]),
    "as_name": _Name,
    "as_tensors": lambda content: [_Name(item["name"]) for item in content],
    "as_nested_tensors": lambda content: [[_Name(item["name"]) for item in items] for items in content],
    "as_float": float,
    "as_floats": lambda content: [float(item) for item in content],
    "as_complex": lambda content: complex(content["real"], content["imag"]),
    "as_scalar_type": lambda content: DTYPES[content],
    "as_memory_format": lambda content: FORMATS[content],
    "as_layout": lambda content: {7: torch.strided}[content],
    "as_device": lambda _: DEVICE,
    "as_graph": lambda content: _Graph(content["graph"]),
}
"""What a node may be given, by the kinds of torch.export's JSON, which writes infinities as text."""

AS_THEY_ARE = ("as_int", "as_bool", "as_string", "as_ints", "as_bools", "as_strings")
WITHIN = ("as_sym_int", "as_sym_float", "as_sym_bool", "as_optional_tensor")
WITHIN_LISTS = tuple(f"{kind}s" for kind in WITHIN)


def _argument(value: Mapping[str, Any]) -> Any:
    kind, content = _only(value)
    if kind in AS_THEY_ARE:
        return content
    if kind in WITHIN:
        return _argument(content)
    if kind in WITHIN_LISTS:
        return [_argument(item) for item in content]
    if kind not in ARGUMENTS:
        raise _Unsafe(f"passes a value of the kind {_plain(kind)}")
    return ARGUMENTS[kind](content)


def _step(node: Mapping[str, Any]) -> tuple[Callable[..., Any], list[Any], dict[str, Any], Any]:
    """Read one node: the function, its arguments by position and by name, and where its results go."""
    target = node["target"]
    given = [(item["name"], _argument(item["arg"])) for item in node["inputs"]]
    results = [None if next(iter(value)) not in RESULTS else _argument(value) for value in node["outputs"]]
    if target in PYTHON:
        return PYTHON[target], [value for _, value in given], {}, results[0]
    if target in WRAPPERS:
        single = len(results) == 1 and node.get("is_hop_single_tensor_return") is not False
        flat = results[0] if len(results) == 1 and type(results[0]) is list else results
        return WRAPPERS[target], [value for _, value in given], {}, results[0] if single else flat
    function = _operator(target)
    single = len(function._schema.returns) == 1
    return function, [], dict(given), results[0] if single and results else results or None


RESULTS = ("as_tensor", "as_tensors", "as_optional_tensors", "as_sym_int", "as_sym_float", "as_sym_bool")


def _operator(target: str) -> torch._ops.OpOverload:
    name, _, overload = target.removeprefix("torch.ops.aten.").partition(".")
    known = name in OPERATORS or name.removesuffix("_") in OPERATORS
    if not target.startswith("torch.ops.aten.") or not known:
        raise _Unsafe(f"calls {_plain(target)}, which is not in the list of harmless operators")
    packet = getattr(torch.ops.aten, name)
    if overload not in packet.overloads():
        raise _Bad(f"torch {torch.__version__} has no operator {_plain(target)}; export the program again")
    return getattr(packet, overload)


def _with_autocast(device: str, dtype: Any, enabled: bool, cache: Any, graph: Callable, *values: Any) -> Any:
    with torch.autocast(device, dtype=dtype, enabled=enabled, cache_enabled=cache):
        return graph(*values)


WRAPPERS: dict[str, Callable[..., Any]] = {
    "torch.ops.higher_order.wrap_with_set_grad_enabled": lambda enabled, graph, *values: graph(*values),
    "torch.ops.higher_order.wrap_with_autocast": _with_autocast,
    "torch.ops.higher_order.cond": lambda choice, yes, no, values: (yes if choice else no)(*values),
}
"""Operators that take graphs."""


class _Exported(nn.Module):
    """A program of torch.export that runs its graph without any code of torch's loader."""

    def __init__(
        self,
        program: Mapping[str, Any],
        image: Mapping[str, Any],
        conditions: list[ast.expr],
        weights: Mapping[str, Tensor],
        constants: Mapping[str, Tensor],
    ) -> None:
        super().__init__()
        signature = program["signature"]
        self._graph = _Graph(program["graph"])
        self._out_spec = json.loads(program["module_call_graph"][0]["signature"]["out_spec"])[1]
        self._returned = ["user_output" in spec for spec in signature["output_specs"]]
        self._dtype = DTYPES[image["dtype"]]
        self._shape = [size.get("as_int") for size in image["sizes"]]
        self._conditions = conditions
        self._allowed: set[tuple[int, ...]] = set()
        """Shapes of images that all conditions hold for."""
        self._values: list[str | None] = []
        """For each input of the graph the buffer that it is, or None for the image."""
        for index, spec in enumerate(signature["input_specs"]):
            self._values.append(None if _is_image(spec) else f"value_{index}")
            if not _is_image(spec):
                self.register_buffer(f"value_{index}", _stored(spec, weights, constants))

    def forward(self, pixels: Tensor) -> Any:
        """Raises RenderError for an image of a shape that the program is not made for."""
        if pixels.shape not in self._allowed:
            self._check(tuple(pixels.shape))
            self._allowed.add(pixels.shape)
        image = pixels.to(self._dtype)
        given = self._graph([getattr(self, name) if name else image for name in self._values], pixels.device)
        # the others are what the program would change of itself, and no frame may depend on those before it
        leaves = (value for value, returned in zip(given, self._returned, strict=True) if returned)
        return _shaped(self._out_spec, leaves)

    def _check(self, shape: tuple[int, ...]) -> None:
        given = "×".join(map(str, shape))
        if any(have != want for have, want in zip(shape, self._shape, strict=True) if want is not None):
            wanted = "×".join("any" if size is None else str(size) for size in self._shape)
            raise RenderError(f"the program takes {wanted} and was given {given}")
        for condition in self._conditions:
            if not _satisfied(condition, shape):
                raise RenderError(f"the program does not take {given}: {_plain(ast.unparse(condition), 200)} must hold")


def _satisfied(condition: ast.expr, shape: tuple[int, ...]) -> bool:
    try:
        return bool(_holds(condition, shape))
    except ZeroDivisionError:
        return False


def _is_image(spec: Mapping[str, Any]) -> bool:
    return "user_input" in spec and "as_tensor" in spec["user_input"]["arg"]


def _stored(spec: Mapping[str, Any], weights: Mapping[str, Tensor], constants: Mapping[str, Tensor]) -> Tensor:
    """The tensor that an input of a graph stands for."""
    kind, content = _only(spec)
    if kind in ("parameter", "buffer", "tensor_constant"):
        key = content[f"{kind}_name"]
        return weights[key] if key in weights else constants[key]
    if kind == "constant_input" or (kind == "user_input" and _only(content["arg"])[0] in CONSTANTS):
        return torch.empty(0)  # an argument that was a number when the program was exported; the graph has it inside
    raise _Unsafe(f"takes an input of the kind {_plain(kind)}")


CONSTANTS = ("as_none", "as_int", "as_float", "as_bool", "as_string")


def _export(path: Path, *, trusted: bool = False) -> Program:
    archive = _Archive(path)
    model, program = _exported_program(archive)
    if program["schema_version"]["major"] != SCHEMA:
        raise LoadError(
            f"{path.name} is of generation {program['schema_version']['major']} of torch.export's format and "
            f"generation {SCHEMA} is understood; export it again with torch {torch.__version__}"
        )
    graph, signature = program["graph_module"]["graph"], program["graph_module"]["signature"]
    metas = [graph["tensor_values"][name] for name in _image_names(signature)]
    meta = metas[0] if len(metas) == 1 else None
    if meta is None or len(meta["sizes"]) != 4 or not DTYPES[meta["dtype"]].is_floating_point:
        asked = ", ".join(map(_plain, _image_names(signature)))
        raise LoadError(
            f"the program in {path.name} asks for {len(metas)} tensors ({asked}); expected one image of 4 dimensions, "
            "batch, channels, height and width, in floating point"
        )
    conditions = []
    if trusted:
        network: nn.Module = _Fed(torch.export.load(str(path)).module(), DTYPES[meta["dtype"]])
    else:
        conditions = [_condition(text) for text in program.get("guards_code") or []]
        network = _Exported(program["graph_module"], meta, conditions, *_exported_weights(archive, model))
    batch, channels, *sides = meta["sizes"]
    first = batch.get("as_int", 1), channels.get("as_int", 3)
    return Program(
        network=network.eval().requires_grad_(False),
        kind="export",
        channels=channels.get("as_int"),
        batch=batch.get("as_int"),
        **_fits(
            *(_Side.of(side, program["range_constraints"]) for side in sides),
            lambda *size: all(_satisfied(condition, (*first, *size)) for condition in conditions),
        ),
    )


def _image_names(signature: Mapping[str, Any]) -> list[str]:
    """The names of the tensors that the caller has to give."""
    given = [spec["user_input"]["arg"] for spec in signature["input_specs"] if "user_input" in spec]
    return [value["as_tensor"]["name"] for value in given if "as_tensor" in value]


def _exported_program(archive: _Archive) -> tuple[str | None, dict[str, Any]]:
    """Read a program's JSON and its name in the archive; None for the format of torch up to 2.7, which has none."""
    if "serialized_exported_program.json" in archive.names:
        return None, json.loads(archive.read("serialized_exported_program.json"))
    models = [name for name in archive.names if name.startswith("models/") and name.endswith(".json")]
    if not models:
        compiled = any(name.startswith("data/aotinductor/") for name in archive.names)
        held = "machine code for one kind of computer (AOTInductor) and no program" if compiled else "no program"
        raise _Bad(f"the archive holds {held}; save it with torch.export.save")
    model = "models/model.json" if "models/model.json" in models else min(models)
    return model[len("models/") : -len(".json")], json.loads(archive.read(model))


def _exported_weights(archive: _Archive, model: str | None) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Read a program's weights and its constants; nothing is unpickled but the plain tensors of old files."""
    if model is None:
        names = "serialized_state_dict.pt", "serialized_constants.pt"
        weights, constants = (_plain_tensors(archive.read(name)) for name in names)
        return weights, constants
    return (
        _payload(archive, "data/weights/", model, "weights"),
        _payload(archive, "data/constants/", model, "constants"),
    )


def _payload(archive: _Archive, folder: str, model: str, what: str) -> dict[str, Tensor]:
    if f"{folder}{model}.pt" in archive.names:  # torch 2.8
        return _plain_tensors(archive.read(f"{folder}{model}.pt"))
    records: dict[tuple[str, int], Tensor] = {}
    tensors = {}
    for key, entry in json.loads(archive.read(f"{folder}{model}_{what}_config.json"))["config"].items():
        if entry["use_pickle"] or entry["tensor_meta"] is None:
            raise _Unsafe(f"holds a pickled object, '{_plain(key)}'")
        meta, record = entry["tensor_meta"], (entry["path_name"], entry["tensor_meta"]["dtype"])
        dtype = DTYPES[meta["dtype"]]
        if record not in records:
            data = bytearray(archive.read(f"{folder}{record[0]}"))
            records[record] = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
        shape, strides = ([size["as_int"] for size in meta[name]] for name in ("sizes", "strides"))
        flat, offset = records[record], meta["storage_offset"]["as_int"]
        _check_view(shape, strides, offset, flat.numel(), dtype.itemsize)
        tensors[key] = flat.as_strided(shape, strides, offset)
    return tensors


def _plain_tensors(data: bytes) -> dict[str, Tensor]:
    if not data:
        return {}
    _Archive(io.BytesIO(data))
    try:
        tensors = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _Unsafe("holds a pickle of more than tensors") from error
    return {key: value.detach() for key, value in tensors.items() if isinstance(value, Tensor)}


def _shaped(spec: Mapping[str, Any], leaves: Iterator[Any]) -> Any:
    """Put a program's outputs into the tuples, lists and dicts that its author returned."""
    kind, inner = spec["type"], spec["children_spec"]
    if kind is None:
        return next(leaves)
    if kind in ("builtins.dict", "collections.OrderedDict"):
        keys = json.loads(spec["context"]) if isinstance(spec["context"], str) else spec["context"]
        make = dict if kind == "builtins.dict" else OrderedDict
        return make((key, _shaped(child, leaves)) for key, child in zip(keys, inner, strict=True))
    items = [_shaped(child, leaves) for child in inner]
    return items if kind == "builtins.list" else tuple(items)


COMPARED: dict[type, Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge, ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv, ast.Div: operator.truediv, ast.Mod: operator.mod,
}  # fmt: skip
CALLED = PYTHON | {"max": max, "min": min, "abs": abs, "int": int, "float": float}


def _condition(text: str) -> ast.expr:
    """Read a condition on the image's shape, ``L['x'].size()[3] % 4 == 0``; it is never given to Python to run."""
    try:
        condition = ast.parse(text, mode="eval").body
        _holds(condition, (1, 1, 64, 64))
    except ZeroDivisionError:
        pass
    except (SyntaxError, ValueError, IndexError, RecursionError, MemoryError, TypeError, OverflowError) as error:
        raise _Unsafe(f"sets a condition that is not arithmetic on the image's size: {_plain(text)}") from error
    return condition


def _holds(node: ast.expr, shape: tuple[int, ...]) -> Any:
    """The value of a condition, or of a part of it, for an image of this shape. Raises ValueError for anything else."""
    match node:
        case ast.Constant(value=bool() | int() | float()):
            value = node.value
        case ast.Subscript(value=ast.Call(func=ast.Attribute(attr="size"), args=[]), slice=ast.Constant(value=int())):
            value = shape[node.slice.value]
        case ast.BinOp(left=left, op=by, right=right) | ast.Compare(left=left, ops=[by], comparators=[right]) if (
            type(by) in COMPARED
        ):
            value = COMPARED[type(by)](_holds(left, shape), _holds(right, shape))
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            value = -_holds(inner, shape)
        case ast.UnaryOp(op=ast.Not(), operand=inner):
            value = not _holds(inner, shape)
        case ast.BoolOp(op=op, values=values):
            parts = [_holds(part, shape) for part in values]
            value = all(parts) if isinstance(op, ast.And) else any(parts)
        case ast.Call(func=ast.Name() | ast.Attribute(), args=values, keywords=[]) if ast.unparse(node.func) in CALLED:
            value = CALLED[ast.unparse(node.func)](*[_holds(part, shape) for part in values])
        case _:
            raise ValueError(type(node).__name__)
    return value


@dataclass(frozen=True)
class _Side:
    """What one side of the image may be: multiples of ``multiple`` from ``least`` to ``most``, all in pixels."""

    least: int = 1
    most: int | None = None
    multiple: int = 1
    symbol: str | None = None
    """Sides of one symbol depend on each other."""
    example: int | None = None
    """What it was when the program was exported."""

    @classmethod
    def of(cls, size: Mapping[str, Any], ranges: Mapping[str, Any]) -> "_Side":
        """Read a size of torch.export; one that is neither a number nor ``k*s`` stays as it was in the example."""
        if "as_int" in size:
            return cls(size["as_int"], size["as_int"], example=size["as_int"])
        example = (size["as_expr"]["hint"] or {}).get("as_int")
        found = SYMBOL.fullmatch(size["as_expr"]["expr_str"])
        if found is None:
            return cls(example, example, example=example)
        bounds, multiple = ranges.get(found[2], {}), int(found[1] or 1)
        most = bounds.get("max_val")
        return cls(max(1, bounds.get("min_val") or 1) * multiple, most and most * multiple, multiple, found[2], example)

    @property
    def frozen(self) -> bool:
        return self.least == self.most

    def spread(self, multiple: int) -> list[int]:
        """A few sizes among those allowed, multiples of ``multiple``."""
        low = max(self.least, min(SIDE // 8, self.most or SIDE))
        first, last = -(-low // multiple), min(self.most or 2 * SIDE, max(2 * SIDE, low)) // multiple
        middle = (first + last) // 2
        numbers = [first, *(middle + step for step in (0, 1, 2, 3, 5, 7)), last]
        return [number * multiple for number in numbers if first <= number <= last]

    def near(self, pixels: int) -> int:
        """The size that is allowed and closest below ``pixels``."""
        pixels = min(max(pixels, self.least), self.most or pixels)
        return max(pixels // self.multiple * self.multiple, self.least)


def _fits(height: _Side, width: _Side, holds: Callable[[int, int], bool] = lambda height, width: True) -> dict:
    """Say which sizes of images a program takes, as fields of Program; ``holds`` tells whether it takes this one."""
    multiple = math.lcm(height.multiple, width.multiple)
    tied = height.symbol is not None and height.symbol == width.symbol
    size = None
    if height.frozen or width.frozen or tied:
        scale = SIDE // max(height.multiple, width.multiple)
        size = height.near(scale * height.multiple), width.near(scale * width.multiple)
        multiple = 1
    else:
        multiple = next(
            (number for number in range(multiple, SIDE // 2, multiple) if _takes(height, width, number, holds)), 0
        )
    if (size and not holds(*size)) or not multiple:
        size, multiple = (height.example or height.least, width.example or width.least), 1
    return {
        "size": size,
        "multiple": multiple,
        "least": (height.least, width.least),
        "most": (height.most, width.most),
    }


def _takes(height: _Side, width: _Side, multiple: int, holds: Callable[[int, int], bool]) -> bool:
    """Whether a program takes images whose sides are multiples of this many pixels, judged by a few."""
    rows, columns = height.spread(multiple), width.spread(multiple)
    pairs = [*zip(rows, columns, strict=False), *zip(rows, reversed(columns), strict=False)]
    return bool(pairs) and all(holds(*pair) for pair in pairs)


class _Session(nn.Module):
    """An ONNX program run by onnxruntime, on the device that its input is on where the installation can."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._sessions: dict[str, Any] = {}
        session = self.session("cpu")
        inputs, outputs = session.get_inputs(), session.get_outputs()
        shape = inputs[0].shape if len(inputs) == 1 else []
        if len(shape) != 4 or inputs[0].type not in NUMBERS or (shape[3] in (1, 3, 4) and shape[1] not in (1, 3, 4)):
            asked = ", ".join(f"{_plain(str(item.name))}: {item.type} {_plain(str(item.shape))}" for item in inputs)
            raise LoadError(
                f"the program in {path.name} asks for {asked}; expected one image of 4 dimensions, batch, channels, "
                "height and width, in floating point"
            )
        self.shape = shape
        self._input = inputs[0].name
        self._dtype = NUMBERS[inputs[0].type]
        images = [output.name for output in outputs if len(output.shape or []) == 4]
        self._output = (images or [outputs[0].name])[0]

    def session(self, device: str) -> Any:
        import onnxruntime

        provider = "CUDAExecutionProvider" if device == "cuda" else "CPUExecutionProvider"
        if provider not in onnxruntime.get_available_providers():
            provider = "CPUExecutionProvider"
        if provider not in self._sessions:
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 3
            options.intra_op_num_threads = torch.get_num_threads()
            # by content, onnxruntime would also take its own format, which was not checked
            options.add_session_config_entry("session.load_model_format", "ONNX")
            self._sessions[provider] = onnxruntime.InferenceSession(
                str(self._path), options, providers=list(dict.fromkeys([provider, "CPUExecutionProvider"]))
            )
        return self._sessions[provider]

    def forward(self, pixels: Tensor) -> Tensor:
        array = pixels.detach().to("cpu", self._dtype).contiguous().numpy()
        (result,) = self.session(pixels.device.type).run([self._output], {self._input: array})
        return torch.from_numpy(result).to(pixels.device)


def _onnx(path: Path, *, trusted: bool = False) -> Program:
    with path.open("rb") as file:
        found = _OnnxContents(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))
    # whoever is trusted, weights are read from the artifact's own folder only
    for location, last in found.external.items():
        beside = path.parent / location
        if len(PurePosixPath(location).parts) != 1 or location == ".." or "\\" in location:
            raise LoadError(f"{path.name} wants to read its weights from '{_plain(location)}', outside of its folder")
        if not _is_plain_file(beside):
            raise LoadError(f"{path.name} keeps weights in '{_plain(location)}', which is no file beside it")
        if beside.stat().st_size < last:
            raise LoadError(f"'{_plain(location)}' ends before the weights that {path.name} keeps in it")
    if found.foreign and not trusted:
        raise _Unsafe(f"uses operators beyond the ONNX standard ({', '.join(sorted(map(_plain, found.foreign))[:5])})")
    try:
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise LoadError(f"{path.name} is an ONNX program; to render it: pip install onnxruntime") from error
    network = _Session(path)
    batch, channels, *sides = (size if isinstance(size, int) and size > 0 else None for size in network.shape)
    return Program(
        network=network.eval(),
        kind="onnx",
        channels=channels,
        batch=batch,
        **_fits(*(_Side() if side is None else _Side(side, side) for side in sides)),
    )


def _is_plain_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


MESSAGES = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
}
"""Fields that hold messages, by number, as onnx.proto gives them."""


class _OnnxContents:
    """What matters of an ONNX file for safety, read from its protobuf without building any of it."""

    def __init__(self, data: memoryview) -> None:
        self.external: dict[str, int] = {}
        """File names, and how many bytes are wanted of each."""
        self._domains: set[str] = set()
        self._functions: set[str] = set()
        self._read(data, "model", 0)
        own = {domain for domain in self._functions if not domain.startswith(("com.", "ai."))}
        self.foreign = self._domains - DOMAINS - own
        """Domains of operators that are neither of the standard nor functions of the file."""

    def _read(self, data: memoryview, message: str, depth: int) -> None:
        if depth > 100:
            raise _Bad("the program's graphs are nested more than 100 deep")
        inner = MESSAGES.get(message, {})
        tensor: dict[str, Any] = {"shape": [], "external": {}}
        for number, value in _fields(data):
            if number in inner and isinstance(value, memoryview):
                self._read(value, inner[number], depth + 1)
            elif message == "node" and number == 7 and isinstance(value, memoryview):
                self._domains.add(str(value, "utf-8"))
            elif message == "function" and number == 10 and isinstance(value, memoryview):
                self._functions.add(str(value, "utf-8"))
            elif message == "tensor" and number == 1:
                tensor["shape"] += [value] if isinstance(value, int) else list(_packed(value))
            elif message == "tensor" and number == 13 and isinstance(value, memoryview):
                entry = {key: str(text, "utf-8") for key, text in _fields(value) if isinstance(text, memoryview)}
                tensor["external"][entry.get(1, "")] = entry.get(2, "")
            elif message == "tensor" and number == 14 and value == 1:
                tensor["external"].setdefault("location", "")
        if math.prod(tensor["shape"]) > LARGEST:
            raise _Bad(f"a tensor in the file declares the shape {_plain(str(tuple(tensor['shape'])), 80)}")
        if external := tensor["external"]:
            last = int(external.get("offset", "0")) + int(external.get("length", "0"))
            location = external.get("location", "")
            self.external[location] = max(last, self.external.get(location, 0))


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Walk a protobuf message: the number of each field and its value; fixed-width numbers are given as bytes."""
    at, end = 0, len(data)
    while at < end:
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield number, value
            continue
        if wire == 2:
            length, at = _varint(data, at)
        else:
            length = {1: 8, 5: 4}.get(wire, -1)
        if length < 0 or at + length > end:
            raise _Bad("the file is cut off or is not ONNX")
        yield number, data[at : at + length]
        at += length


def _packed(data: memoryview) -> Iterator[int]:
    at = 0
    while at < len(data):
        value, at = _varint(data, at)
        yield value


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise _Bad("the file is cut off or is not ONNX")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise _Bad("the file is damaged or is not ONNX")
