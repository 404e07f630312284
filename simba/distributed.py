"""Data-parallel training in which the workers exchange votes instead of gradients.

Each worker turns its gradient into one vote per coordinate. Worker i collects the votes on the i-th
part of the coordinates (all-to-all), reduces them (majority or mean), and sends the result to all
workers (all-gather). Votes are integers, so the order of summation does not matter, and the results
of all workers are bitwise identical. A ternary vote takes 1.6 bits in each direction (five in a
byte), a vote of -1 or 1 takes 1 bit, float32 in a ring all-reduce 32 bits.

signSGD with majority vote is by Bernstein et al. (2018, arXiv 1802.04434; 2019, arXiv 1810.05291).
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.futures import Future

from simba.backends.eager import CHUNK_ELEMENTS
from simba.checks import RANGES
from simba.directions import nearest_with_error
from simba.noise import key, uniforms
from simba.scale import inverse_spacing, scale_of, scaled
from simba.state import upcast

BYTE_VALUES = 256  # the number of values of a byte
VOTE_INDEX_OFFSET = 1 << 20  # smaller indices select the noise of optimizers


class VoteState:
    """The settings and the state of ``vote_hook``.

    ``ddp.register_comm_hook(VoteState(ddp.parameters()), vote_hook)``

    To give x, a coordinate's gradient is divided by ``spacing`` times the scale of its tensor: the
    ratio ``sum(g^2) / sum(abs(g))`` of this worker's gradient (in optimizers, its moving average).

    - ``levels=3``: the vote is the nearest of -1, 0 and 1 to x, and 0 where x is 0.
    - ``levels=2``: the vote is ``sign(x + u)``, -1 or 1, with u uniform in [-1, 1). Its expected
      value is ``clamp(x, -1, 1)``.

    Args:
        params: all parameters of the model, in the same order on every worker.
        levels: the number of possible votes, 3 or 2.
        reduction: the gradient that optimizers get. ``"majority"``: the sign of the sum of all
            votes. A tie gives 0 for ``levels=3`` and the vote of the worker of rank
            ``step % workers`` for ``levels=2``. ``"mean"``: the mean of all votes. The all-gather
            then sends more bits, see ``per_byte``.
        spacing: gradients are divided by ``spacing`` times the scale, > 0.
        error_feedback: add a vote's rounding error to the next x (Karimireddy et al. 2019, arXiv
            1901.09847). The error is clamped to [-d, d], where d is the distance between adjacent
            votes (1 for ``levels=3``, 2 for ``levels=2``). Each worker stores one 1-d
            tensor per parameter, of its size, in the gradient's dtype (float16 and bfloat16:
            float32).
        seed: selects u, an integer >= 0. u is a function of seed, step, worker, parameter and
            coordinate, so a resumed run gets the same numbers.
        process_group: the workers; None: all. It must be initialized before.

    Attributes:
        bytes_sent: the bytes of votes that this worker has sent so far to other workers.
        step: the number of steps so far.
        errors: the rounding errors of votes, (size,) each, by the parameter's index, in votes.

    Raises:
        ValueError: a setting is out of its range, or there are too many workers for ``"mean"``:
            more than 127 for ``levels=3``, more than 255 for ``levels=2``; or the process group is
            not initialized.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        levels: int = 3,
        reduction: str = "majority",
        spacing: float = 1.0,
        error_feedback: bool = True,
        seed: int = 0,
        process_group: dist.ProcessGroup | None = None,
    ) -> None:
        self.group = dist.group.WORLD if process_group is None else process_group
        self.workers, self.rank = dist.get_world_size(self.group), dist.get_rank(self.group)
        _require(levels in (2, 3), "levels", levels, "2 or 3")
        _require(reduction in ("majority", "mean"), "reduction", reduction, "'majority' or 'mean'")
        for name, value in {"spacing": spacing, "seed": seed}.items():
            valid, expected = RANGES[name]
            _require(valid(value), name, value, expected)
        self.levels, self.reduction, self.spacing = levels, reduction, spacing
        most = self.workers * (levels - 1)  # the largest sum of digits
        self.decided_levels = levels if reduction == "majority" else most + 1
        if self.decided_levels > BYTE_VALUES:
            limit = (BYTE_VALUES - 1) // (levels - 1)
            raise ValueError(
                f"VoteState: reduction='mean' takes at most {limit} workers "
                f"with levels={levels}, got {self.workers}; use 'majority'"
            )
        self.error_feedback, self.seed = error_feedback, seed
        self.indices = {p: index for index, p in enumerate(params)}
        self.errors: dict[int, Tensor] = {}
        self.step = self.bytes_sent = 0

    def state_dict(self) -> dict[str, Any]:
        """The step and the errors. Errors differ between workers: save each worker's own."""
        return {"step": self.step, "errors": {i: t.clone() for i, t in self.errors.items()}}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load what ``state_dict`` returned on the same worker.

        Raises:
            KeyError: ``step`` or ``errors`` is missing.
            ValueError: the errors are not those of these parameters.
        """
        params = {index: p for p, index in self.indices.items()}
        for i, error in state_dict["errors"].items():
            if i not in params or error.numel() != params[i].numel():
                raise ValueError(
                    f"VoteState: the state has {error.numel()} errors of parameter {i}, which does "
                    "not fit: pass the parameters in the same order"
                )
        self.step = state_dict["step"]
        errors = state_dict["errors"].items()
        self.errors = {i: t.to(params[i].device, copy=True) for i, t in errors}

    def vote(self, p: Tensor, g: Tensor) -> Tensor:
        """This worker's votes on a parameter p, int8 in the shape of its gradient g.

        A NaN gradient gives the vote 0 for ``levels=3`` and a random vote for ``levels=2``. An
        infinite gradient gives its sign.

        Raises:
            ValueError: p is not among the parameters that the constructor got.
        """
        if p not in self.indices:
            raise ValueError(
                f"VoteState did not get a parameter of shape {tuple(p.shape)}: pass all parameters "
                "of the model"
            )
        index = self.indices[p]
        flat = g.reshape(-1)
        # in chunks, as in a step: see CHUNK_ELEMENTS
        parts = upcast(flat).split(CHUNK_ELEMENTS if g.is_cpu else max(1, len(flat)))
        inv_spacing = inverse_spacing(scale_of(parts), self.spacing)
        if self.error_feedback and index not in self.errors:
            self.errors[index] = torch.zeros_like(flat, dtype=parts[0].dtype)
        # one tensor for all votes, as in ``scale_of``
        votes, offset = torch.empty_like(flat, dtype=torch.int8), 0
        for part in parts:
            x = scaled(part, inv_spacing)
            votes[offset : offset + len(part)] = self._vote_on(x, index, offset)
            offset += len(part)
        return votes.view(g.shape)

    def _vote_on(self, x: Tensor, index: int, offset: int) -> Tensor:
        """Votes (n,) int8 on n coordinates of a parameter; the first has the index ``offset``."""
        e = x.new_zeros(())
        if self.error_feedback:
            e = self.errors[index][offset : offset + len(x)]
        if self.levels == 3:
            q = nearest_with_error(x, e, 1.0, 1.0)
        else:
            noise_index = VOTE_INDEX_OFFSET * (1 + self.rank) + index
            half_u, _ = uniforms(offset, x, key(self.seed, self.step, noise_index))
            q = torch.where(x + e + 2 * half_u >= 1, 1.0, -1.0)
        if self.error_feedback:
            distance = 2 / (self.levels - 1)  # between two votes
            e.copy_(torch.clamp(x + e - q, -distance, distance))
        return q.to(torch.int8)

    def reduce(self, votes: Tensor, dtype: torch.dtype) -> Tensor:
        """The majority or the mean of all workers' votes.

        Args:
            votes: (coordinates,) int8, those of this worker.
            dtype: the floating-point dtype of the result.

        Returns:
            (coordinates,) in ``dtype``, equal on all workers.
        """
        digits = to_digits(votes, self.levels)
        if self.workers > 1:
            digits = self._exchange(digits)
        return to_votes(digits, self.decided_levels, dtype)

    def _exchange(self, digits: Tensor) -> Tensor:
        part = -(-len(digits) // self.workers)  # coordinates that each worker decides
        padded = F.pad(digits, (0, part * self.workers - len(digits)))
        sent = pack(padded.view(self.workers, part), self.levels)
        received = torch.empty_like(sent)
        dist.all_to_all_single(received, sent, group=self.group)
        votes = unpack(received, self.levels, part)
        decided = pack(decide(votes, self.levels, self.reduction, self.step), self.decided_levels)
        gathered = decided.new_empty(self.workers, *decided.shape)
        dist.all_gather(list(gathered.unbind()), decided, group=self.group)
        self.bytes_sent += (self.workers - 1) * (sent[0].numel() + decided.numel())
        return unpack(gathered, self.decided_levels, part).flatten()[: len(digits)]


def vote_hook(
    state: VoteState,
    bucket: dist.GradBucket,  # type: ignore[name-defined]  # mypy does not see torch's export
) -> Future[Tensor]:
    """A communication hook for DistributedDataParallel: optimizers get the reduced votes.

    The exchange does not overlap with the backward pass, which waits for it.

    Args:
        state: the model's VoteState.
        bucket: the gradients of some parameters, which the reduced votes replace.

    Returns:
        A completed future of the bucket's buffer.

    Raises:
        RuntimeError: the gradients are sparse or complex.
        ValueError: the VoteState was created without a parameter of the bucket.
    """
    buffer = bucket.buffer()
    if buffer.is_sparse or buffer.is_complex():
        kind = "sparse" if buffer.is_sparse else "complex"
        raise RuntimeError(f"vote_hook does not support {kind} gradients")
    gradients = bucket.gradients()
    pairs = zip(bucket.parameters(), gradients, strict=True)
    votes = torch.cat([state.vote(p, g).flatten() for p, g in pairs])
    reduced = state.reduce(votes, buffer.dtype).split([g.numel() for g in gradients])
    for g, part in zip(gradients, reduced, strict=True):  # views of the buffer
        g.copy_(part.view(g.shape))
    if bucket.is_last():
        state.step += 1
    future: Future[Tensor] = Future()
    future.set_result(buffer)
    return future


def decide(digits: Tensor, levels: int, reduction: str, step: int) -> Tensor:
    """Reduce the votes of all workers.

    Args:
        digits: (workers, coordinates) uint8, the votes as ``to_digits`` writes them.
        levels, reduction: see ``VoteState``.
        step: the number of the step; it selects the worker that decides ties for ``levels=2``.

    Returns:
        (coordinates,) uint8, the majority or the mean as a digit.
    """
    workers, total = len(digits), digits.sum(0, dtype=torch.int32)
    if reduction == "mean":
        return total.to(torch.uint8)
    lead = torch.sign(2 * total - workers * (levels - 1))
    if levels == 3:
        return (lead + 1).to(torch.uint8)
    # One worker's vote breaks a tie without bias if the workers' votes are identically distributed.
    return torch.where(lead == 0, digits[step % workers], lead > 0).to(torch.uint8)


def to_digits(votes: Tensor, levels: int) -> Tensor:
    """Votes (...) int8 as digits (...) uint8: -1 becomes 0, and 1 becomes ``levels - 1``."""
    return ((votes + 1) * (levels - 1) >> 1).to(torch.uint8)


def to_votes(digits: Tensor, levels: int, dtype: torch.dtype) -> Tensor:
    """Map digits 0..levels - 1 to equidistant numbers from -1 to 1."""
    half = (levels - 1) / 2
    return (digits.to(dtype) - half) / half


def per_byte(levels: int) -> int:
    """The number of digits of base ``levels`` that fit one byte: 8 for 2, 5 for 3, 3 for 5."""
    return max(count for count in range(9) if levels**count <= BYTE_VALUES)


def pack(digits: Tensor, levels: int) -> Tensor:
    """Write digits as bytes, ``per_byte(levels)`` in each; the last ones may hold zeros.

    Args:
        digits: (..., n) uint8, each below ``levels``.

    Returns:
        (..., ceil(n / per_byte)) uint8.
    """
    count = per_byte(levels)
    size = -(-digits.shape[-1] // count)
    padded = F.pad(digits, (0, count * size - digits.shape[-1]))
    planes = padded.unflatten(-1, (count, size)).unbind(-2)
    packed = planes[-1].clone()
    for plane in planes[-2::-1]:
        packed.mul_(levels).add_(plane)
    return packed


def unpack(packed: Tensor, levels: int, size: int) -> Tensor:
    """The ``size`` digits (..., size) uint8 that ``pack`` wrote as bytes (..., bytes)."""
    rest, planes = packed.float(), []  # torch divides floats faster than integers
    for _ in range(per_byte(levels)):
        higher = torch.floor((rest + 0.5) / levels)
        planes.append((rest - levels * higher).to(torch.uint8))
        rest = higher
    return torch.stack(planes, -2).flatten(-2)[..., :size]


def _require(valid: bool, name: str, value: Any, expected: str) -> None:
    if not valid:
        raise ValueError(f"VoteState: {name} must be {expected}, got {value!r}")
