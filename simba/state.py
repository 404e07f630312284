"""What an optimizer keeps of a parameter: which tensors, and how they are read and written."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from simba.types import Variant

INT8, INT16 = torch.iinfo(torch.int8).max, torch.iinfo(torch.int16).max
SIGNS_PER_BYTE = 5  # 3**5 = 243
ALL_ZERO = 121  # five signs of 0: each is the digit 1 in base 3

# A memory's name in formulas, and its key in ``optimizer.state[p]``.
KEYS = {"m": "exp_avg", "s": "sign_counts", "e": "residual", "signs": "signs"}
RADIX = ("radix", "half_radix", "inv_radix")
PACKED = "packed"  # the key of s and e in one byte
PER_TENSOR = {"step": torch.int64, "scale": torch.float32}  # one number a tensor
COUNTERS = {"sign_counts", "residual", PACKED}
KNOWN_KEYS = {*KEYS.values(), PACKED, *PER_TENSOR}
FOREIGN_KEYS = {"exp_avg_sq", "momentum_buffer"}  # memories of Adam and of torch's SGD


class Stored(NamedTuple):
    """One tensor of the state.

    Args:
        key: its key in ``optimizer.state[p]``.
        holds: the names of the memories in it, one or (packed) two.
        dtype: None: the parameter's.
        bound: whole numbers lie within [-bound, bound]; None: not whole numbers.
    """

    key: str
    holds: tuple[str, ...]
    dtype: torch.dtype | None
    bound: int | None


def counter_dtype(bound: int) -> torch.dtype:
    return torch.int8 if bound <= INT8 else torch.int16


def layout(names: tuple[str, ...], group: Mapping[str, Any]) -> tuple[Stored, ...]:
    """The tensors that hold a variant's memories under a group's hyperparameters.

    s and e share a byte where ``s * (2 * error_bound + 1) + e`` fits one.
    """
    if names == ("s", "e"):
        radix = 2 * group["error_bound"] + 1
        packed = group["bound"] * radix + group["error_bound"]
        if packed <= INT8:
            return (Stored(PACKED, names, torch.int8, packed),)
    found = []
    for name in names:
        bound = None
        if name == "s":
            bound = group["bound"] if "bound" in group else group["window_size"]
        elif name == "e":
            bound = group["error_bound"]
        dtype = None if bound is None else counter_dtype(bound)
        found.append(Stored(KEYS[name], (name,), torch.uint8 if name == "signs" else dtype, bound))
    return tuple(found)


def keys(variant: Variant, group: Mapping[str, Any]) -> set[str]:
    """The keys that a variant may have in ``optimizer.state[p]``."""
    found = {KEYS[name] for name in variant.names}
    found |= {PACKED} if variant.names == ("s", "e") else set()
    by_tensor = variant.by_tensor or group.get("stochastic_rounding")
    return found | PER_TENSOR.keys() if by_tensor else found


def shape(stored: Stored, p: Tensor, group: Mapping[str, Any]) -> tuple[int, ...]:
    if stored.holds == ("signs",):
        return (-(-group["window_size"] // SIGNS_PER_BYTE), *p.shape)
    return tuple(p.shape)


def in_flat_parameter(p: Tensor) -> bool:
    """Whether it is a part of FSDP1's flat parameter; FSDP marks them so."""
    return hasattr(p, "_fsdp_flattened")


def new_tensor(stored: Stored, p: Tensor, group: Mapping[str, Any]) -> Tensor:
    """The tensor at the start, when nothing was seen."""
    if stored.holds == ("signs",):
        strides = (p.numel(), *torch.empty_like(p).stride())  # each plane lies as p does
        planes = torch.empty_strided(
            shape(stored, p, group), strides, dtype=torch.uint8, device=p.device
        )
        return planes.fill_(ALL_ZERO)
    dtype = p.dtype if stored.dtype is None else stored.dtype
    return torch.zeros_like(p, dtype=dtype, memory_format=torch.preserve_format)


def fitted(tensor: Tensor, bound: int) -> Tensor:
    """Whole numbers in the dtype for ``bound``, within it."""
    whole = tensor.to(torch.int32, copy=True).clamp_(-bound, bound)
    return whole.to(counter_dtype(bound))


def upcast(t: Tensor) -> Tensor:
    """Halves and whole numbers as float32, in which a step is computed; others as they are."""
    return t if t.dtype.itemsize >= 4 else t.float()


def unpack(
    packed: Tensor, radix: float, half_radix: float, inv_radix: float
) -> tuple[Tensor, Tensor]:
    """(s, e) of ``radix * s + e``."""
    s = torch.floor((packed + half_radix) * inv_radix)
    return s, packed - radix * s


def pack(s: Tensor, e: Tensor, radix: float) -> Tensor:
    return radix * s + e


def read(
    names: tuple[str, ...], memory: tuple[Tensor, ...], hparams: Mapping[str, Any]
) -> dict[str, Tensor]:
    """The memories by name; whole numbers as float32, which holds them all."""
    values = [upcast(t) for t in memory]
    if len(values) < len(names):
        values = list(unpack(values[0], *(hparams[name] for name in RADIX)))
    return dict(zip(names, values, strict=True))


def write(memory: tuple[Tensor, ...], values: list[Tensor], hparams: Mapping[str, Any]) -> None:
    if len(values) > len(memory):
        s, e = values
        values = [pack(s, e, hparams["radix"])]
    for tensor, value in zip(memory, values, strict=True):
        tensor.copy_(value)
