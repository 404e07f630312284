"""The tensors that an optimizer stores per parameter, and how they are read and written."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from simba.types import Variant

INT8, INT16 = torch.iinfo(torch.int8).max, torch.iinfo(torch.int16).max
SIGNS_PER_BYTE = 5  # 3**5 = 243
ALL_ZERO = 121  # five zero signs: sign 0 has the digit 1, and 121 is 11111 in base 3

# A memory's name in formulas, and its key in ``optimizer.state[p]``.
KEYS = {"m": "exp_avg", "s": "sign_counts", "e": "error", "signs": "signs"}
RADIX = ("radix", "half_radix", "inv_radix")
PACKED = "packed"  # the key of the tensor that holds s and e in one byte
PER_TENSOR = {"step": torch.int64, "scale": torch.float32}  # one number per tensor
COUNTERS = {"sign_counts", "error", PACKED}
KNOWN_KEYS = {*KEYS.values(), PACKED, *PER_TENSOR}
FOREIGN_KEYS = {"exp_avg_sq", "exp_inf", "momentum_buffer"}  # memories of Adam, Adamax, torch's SGD
# Keys that a wrapper around the optimizer may add, such as one that averages weights. They are
# accepted in a saved state that has our memories.
WRAPPER_KEYS = {"step", "momentum_buffer"}


class Stored(NamedTuple):
    """One tensor of the state.

    Args:
        key: its key in ``optimizer.state[p]``.
        holds: the names of the memories in it, one or (packed) two.
        dtype: None: the parameter's dtype.
        bound: the elements are integers in [-bound, bound]; None: not a counter.
    """

    key: str
    holds: tuple[str, ...]
    dtype: torch.dtype | None
    bound: int | None


def counter_dtype(bound: int) -> torch.dtype:
    """The smallest signed integer dtype that holds [-bound, bound]."""
    return torch.int8 if bound <= INT8 else torch.int16


def state_layout(names: tuple[str, ...], group: Mapping[str, Any]) -> tuple[Stored, ...]:
    """The tensors that hold a variant's memories under a group's hyperparameters.

    s and e share one int8 tensor if ``s * (2 * error_bound + 1) + e`` fits int8.
    """
    if names == ("s", "e"):
        radix = 2 * group["error_bound"] + 1
        packed = group["bound"] * radix + group["error_bound"]
        if packed <= INT8:
            return (Stored(PACKED, names, torch.int8, packed),)
    stored = []
    for name in names:
        bound = None
        if name == "s":
            bound = group["bound"] if "bound" in group else group["window_size"]
        elif name == "e":
            bound = group["error_bound"]
        dtype = None if bound is None else counter_dtype(bound)
        stored.append(Stored(KEYS[name], (name,), torch.uint8 if name == "signs" else dtype, bound))
    return tuple(stored)


def keys(variant: Variant, group: Mapping[str, Any]) -> set[str]:
    """The keys that a variant may have in ``optimizer.state[p]``."""
    allowed = {KEYS[name] for name in variant.names}
    allowed |= {PACKED} if variant.names == ("s", "e") else set()
    has_per_tensor_state = variant.has_per_tensor_state or group.get("stochastic_rounding")
    return allowed | PER_TENSOR.keys() if has_per_tensor_state else allowed


def shape(stored: Stored, p: Tensor, group: Mapping[str, Any]) -> tuple[int, ...]:
    """The shape of a stored tensor: p's, and for ``signs`` (planes, *p.shape)."""
    if stored.holds == ("signs",):
        return (-(-group["window_size"] // SIGNS_PER_BYTE), *p.shape)
    return tuple(p.shape)


def in_flat_parameter(p: Tensor) -> bool:
    """Whether p is a view of an FSDP1 flat parameter, which FSDP1 marks with an attribute."""
    return hasattr(p, "_fsdp_flattened")


def new_tensor(stored: Stored, p: Tensor, group: Mapping[str, Any]) -> Tensor:
    """The initial tensor, in the memory order of p: every value, also every sign, is 0."""
    if stored.holds == ("signs",):
        strides = (p.numel(), *torch.empty_like(p).stride())  # each plane has p's memory order
        planes = torch.empty_strided(
            shape(stored, p, group), strides, dtype=torch.uint8, device=p.device
        )
        return planes.fill_(ALL_ZERO)
    dtype = p.dtype if stored.dtype is None else stored.dtype
    return torch.zeros_like(p, dtype=dtype, memory_format=torch.preserve_format)


def clamp_counter(tensor: Tensor, bound: int) -> Tensor:
    """A copy of a counter, clamped to [-bound, bound], in the dtype for that bound."""
    clamped = tensor.to(torch.int32, copy=True).clamp_(-bound, bound)
    return clamped.to(counter_dtype(bound))


def upcast(t: Tensor) -> Tensor:
    """Convert bfloat16, float16, int8, int16 and uint8 to float32; return other dtypes as they are.

    A step is computed in the converted dtype.
    """
    return t if t.dtype.itemsize >= 4 else t.float()


def unpack(
    packed: Tensor, radix: float, half_radix: float, inv_radix: float
) -> tuple[Tensor, Tensor]:
    """(s, e) from ``packed = radix * s + e``, all float32 and of one shape."""
    s = torch.floor((packed + half_radix) * inv_radix)
    return s, packed - radix * s


def pack(s: Tensor, e: Tensor, radix: float) -> Tensor:
    """``radix * s + e``, which ``unpack`` inverts."""
    return radix * s + e


def is_packed(names: Sequence[str], memory: Sequence[Any]) -> bool:
    """Whether s and e share one tensor: there are then fewer tensors than memories."""
    return len(memory) < len(names)


def read_memories(
    names: tuple[str, ...], memory: tuple[Tensor, ...], hparams: Mapping[str, Any]
) -> dict[str, Tensor]:
    """The memories by name. Integers become float32, which represents all of them exactly."""
    values = [upcast(t) for t in memory]
    if is_packed(names, values):
        values = list(unpack(values[0], *(hparams[name] for name in RADIX)))
    return dict(zip(names, values, strict=True))


def write_memories(
    memory: tuple[Tensor, ...], values: list[Tensor], hparams: Mapping[str, Any]
) -> None:
    """Copy new values, one per memory and of its shape, into the stored tensors.

    s and e are packed if they share a tensor.
    """
    if len(values) > len(memory):
        s, e = values
        values = [pack(s, e, hparams["radix"])]
    for tensor, value in zip(memory, values, strict=True):
        tensor.copy_(value)
