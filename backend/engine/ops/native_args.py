"""The argument structs of the C kernels (csrc/), mirrored for ctypes.

The fields are explained in C, where each struct is declared. native.py refuses a library whose layout of a struct, its
size and the offset of every field, differs from the mirror.
"""

from __future__ import annotations

import ctypes

POINTER, COUNT, FLOAT, FLAG = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float, ctypes.c_int


class GemvArgs(ctypes.Structure):
    """`GemvArgs` of gemv.c."""

    _fields_ = (
        *((name, POINTER) for name in ("rows", "weight", "activations", "absmax", "scales", "shift", "out")),
        *((name, COUNT) for name in ("count", "outputs", "inputs")),
    )


class AttentionArgs(ctypes.Structure):
    """`AttentionArgs` of attention.c."""

    _fields_ = (
        *((name, POINTER) for name in ("projected", "norm", "cos_sin", "keys", "values", "lengths", "out")),
        *((name, COUNT) for name in ("rows", "positions", "heads", "key_heads", "slots", "size")),
        ("epsilon", FLOAT),
        ("activations_are_bf16", FLAG),
        ("cache_is_bf16", FLAG),
    )


class PrefillAttentionArgs(ctypes.Structure):
    """`PrefillAttentionArgs` of prefill_attention.c."""

    _fields_ = (
        *((name, POINTER) for name in ("queries", "keys", "values", "out", "scratch", "cu_seqlens", "kv_offsets")),
        *((name, COUNT) for name in ("head_stride", "slot_stride", "rows", "heads", "key_heads", "size")),
        *((name, COUNT) for name in ("threads", "slots")),
        ("scale", FLOAT),
        ("causal", FLAG),
        ("out_is_bf16", FLAG),
    )


# The name of the layout that the library exports -> the mirror
LAYOUTS: dict[str, type[ctypes.Structure]] = {
    "gemv_args_layout": GemvArgs,
    "attention_args_layout": AttentionArgs,
    "prefill_attention_args_layout": PrefillAttentionArgs,
}

# What the library exports about itself, each explained where C declares it
LIMITS = (
    "max_sharing_heads",
    "max_head_size",
    "lanes",
    "gemv_outputs_multiple",
    "gemv_line_bytes",
    "prefill_block",
    "prefill_group",
)

# Each kernel's arguments; what needs more than a handful takes a struct by pointer.
KERNELS = {
    "rms_norm": (POINTER, POINTER, POINTER, COUNT, COUNT, FLOAT, FLAG),
    "silu_mul": (POINTER, POINTER, COUNT, COUNT, FLAG),
    "scale_by_absmax": (POINTER, POINTER, POINTER, COUNT, COUNT),
    "rescale": (POINTER, POINTER, COUNT, COUNT),
    "quantize": (POINTER, POINTER, POINTER, COUNT, COUNT),
    "dequantize": (POINTER, POINTER, POINTER, POINTER, COUNT, COUNT),
    "gemv_bf16": (POINTER,),
    "gemv_int8": (POINTER,),
    "prefill_attention": (POINTER,),
    "rope": (POINTER,),
    "decode_attention": (POINTER,),
}


def layout(struct: type[ctypes.Structure]) -> list[int]:
    """The size of a struct, the offset of each field, and -1: what EXPORT_LAYOUT (csrc/bf16.h) exports."""
    return [ctypes.sizeof(struct), *(getattr(struct, field[0]).offset for field in struct._fields_), -1]
