"""Full ranking: the rank of each user's held-out item among all items that the user has not had."""

from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from models.ops import kernels


def block_size(device: torch.device) -> int:
    """How many users and how many items are scored at a time: scores take its square in memory."""
    return 512 if device.type == "cpu" else 4096


def rank_targets(
    hidden: Tensor,
    item_weight: Tensor,
    targets: Tensor,
    seen_offsets: Tensor,
    seen_items: Tensor,
    masked: Tensor | None = None,
) -> Tensor:
    """The rank (B,) int64 of each user's target: 1 plus the number of competing items that do not
    score lower. Ties thus count against the target, and so does a NaN on either side.

    All items compete except those that the user has had. The target is ranked even if it is among
    those.

    BLAS may round the same dot product differently in products of different shapes. The target's
    score is therefore computed in a product of exactly the shape of the blocks it is compared with,
    so ties are exact and ranks do not depend on block boundaries.

    Args:
        hidden: (B, D), one hidden state per user.
        item_weight: (N, D), the vector of item i is row i - 1.
        targets: (B,) int64, items 1..N.
        seen_offsets: (B + 1,) int64.
        seen_items: (S,) int64, items 1..N. User b has had those from ``seen_offsets[b]`` up to,
            not including, ``seen_offsets[b + 1]``. An item may occur twice.
        masked: (B,) bool, the targets that come last whatever they score.
    """
    ranks, size = [], block_size(hidden.device)
    for first in range(0, len(hidden), size):
        part = slice(first, min(first + size, len(hidden)))
        offsets = seen_offsets[part.start : part.stop + 1]
        seen = seen_items[offsets[0] : offsets[-1]]
        offsets = offsets - offsets[0]
        ranks.append(_rank_block(hidden[part], item_weight, targets[part], offsets, seen))
    found = torch.cat(ranks)
    return found if masked is None else found.masked_fill(masked, len(item_weight))


def _rank_block(
    hidden: Tensor, item_weight: Tensor, targets: Tensor, seen_offsets: Tensor, seen_items: Tensor
) -> Tensor:
    users, size = len(hidden), block_size(hidden.device)
    states = _zero_padded(hidden, size)
    target_weight = _zero_padded(item_weight[targets - 1], size)
    target_scores = (states @ target_weight.T).diagonal()[:users].contiguous()
    ranks = torch.ones_like(targets)
    count_ahead = count_ahead_cpu if hidden.device.type == "cpu" else count_ahead_reference
    scores = hidden.new_empty(size, size)
    for first in range(0, len(item_weight), size):
        block = item_weight[first : first + size]
        torch.mm(states, _zero_padded(block, size).T, out=scores)
        block_scores = scores[:users, : len(block)]
        count_ahead(
            block_scores, first + 1, target_scores, targets, seen_offsets, seen_items, ranks
        )
    return ranks


def count_ahead_reference(
    scores: Tensor,
    first: int,
    target_scores: Tensor,
    targets: Tensor,
    seen_offsets: Tensor,
    seen_items: Tensor,
    ranks: Tensor,
) -> None:
    """Add to each user's rank how many items of a block come before the target.

    Args:
        scores: (B, items of the block); those of items that do not compete become -inf.
        first: the block holds the items first, first + 1, ...
        target_scores: (B,).
        targets, seen_offsets, seen_items: as ``rank_targets`` has them.
        ranks: (B,) int64, is added to.
    """
    users = torch.arange(len(scores), device=scores.device)
    seen_users = users.repeat_interleave(seen_offsets.diff())
    for rows, items in ((seen_users, seen_items), (users, targets)):
        in_block = (items >= first) & (items < first + scores.shape[1])
        scores[rows[in_block], items[in_block] - first] = -torch.inf
    ranks += ((scores != -torch.inf) & ~(scores < target_scores.unsqueeze(1))).sum(1)


def count_ahead_cpu(scores: Tensor, first: int, *arrays: Tensor) -> None:
    """``count_ahead_reference``, compiled."""
    kernels.count_ahead(scores.numpy(), first, *(tensor.numpy() for tensor in arrays))


def _zero_padded(rows: Tensor, size: int) -> Tensor:
    """(up to size, D) -> (size, D), so that all products have one shape."""
    return rows if len(rows) == size else F.pad(rows, (0, 0, 0, size - len(rows)))


def metrics(ranks: np.ndarray, ks: Iterable[int]) -> dict[str, float]:
    """HR@K and NDCG@K for every K, as means over users.

    With one relevant item per user, HR@K is 1 for a rank of at most K and else 0; NDCG@K is
    1 / log2(rank + 1) and else 0.

    Args:
        ranks: (users,), from 1 on.
    """
    gains = 1 / np.log2(ranks + 1.0)
    ks = list(ks)
    hits = {f"HR@{k}": float(np.mean(ranks <= k)) for k in ks}
    return hits | {f"NDCG@{k}": float(np.mean(np.where(ranks <= k, gains, 0.0))) for k in ks}
