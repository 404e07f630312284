"""Full ranking: the rank of each user's held-out item among all items that are not excluded."""

from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from models.ops import kernels


def block_size(device: torch.device) -> int:
    """The side length of a square block of scores: the number of its users and of its items."""
    return 512 if device.type == "cpu" else 4096


def rank_targets(
    hidden: Tensor,
    item_weight: Tensor,
    targets: Tensor,
    excluded_offsets: Tensor,
    excluded_items: Tensor,
    rank_last: Tensor | None = None,
) -> Tensor:
    """The rank (B,) int64 of each user's target.

    The rank is 1 plus the number of competing items whose score is not lower. Ties and NaN scores
    therefore count against the target. All items compete except the user's excluded
    items. The target is ranked even if it is one of them.

    BLAS may round the same dot product differently in products of different shapes. The target's
    score is therefore computed in a product of exactly the shape of the blocks it is compared with,
    so ties are exact and ranks do not depend on block boundaries.

    Args:
        hidden: (B, D), one hidden state per user.
        item_weight: (N, D), the vector of item i is row i - 1.
        targets: (B,) int64, items 1..N.
        excluded_offsets: (B + 1,) int64.
        excluded_items: (S,) int64, items 1..N. Those of user b are
            ``excluded_items[excluded_offsets[b]:excluded_offsets[b + 1]]``; one may occur twice.
        rank_last: (B,) bool, whether a target gets the rank N, whatever its score.
    """
    ranks, size = [], block_size(hidden.device)
    for first in range(0, len(hidden), size):
        part = slice(first, min(first + size, len(hidden)))
        offsets = excluded_offsets[part.start : part.stop + 1]
        excluded = excluded_items[offsets[0] : offsets[-1]]
        offsets = offsets - offsets[0]
        ranks.append(_rank_block(hidden[part], item_weight, targets[part], offsets, excluded))
    all_ranks = torch.cat(ranks)
    return all_ranks if rank_last is None else all_ranks.masked_fill(rank_last, len(item_weight))


def _rank_block(
    hidden: Tensor,
    item_weight: Tensor,
    targets: Tensor,
    excluded_offsets: Tensor,
    excluded_items: Tensor,
) -> Tensor:
    users, size = len(hidden), block_size(hidden.device)
    states = _zero_padded(hidden, size)
    target_weight = _zero_padded(item_weight[targets - 1], size)
    target_scores = (states @ target_weight.T).diagonal()[:users].contiguous()
    ranks = torch.ones_like(targets)
    count_not_lower = (
        count_not_lower_cpu if hidden.device.type == "cpu" else count_not_lower_reference
    )
    scores = hidden.new_empty(size, size)
    for first in range(0, len(item_weight), size):
        block = item_weight[first : first + size]
        torch.mm(states, _zero_padded(block, size).T, out=scores)
        block_scores = scores[:users, : len(block)]
        count_not_lower(
            block_scores, first + 1, target_scores, targets, excluded_offsets, excluded_items, ranks
        )
    return ranks


def count_not_lower_reference(
    scores: Tensor,
    first: int,
    target_scores: Tensor,
    targets: Tensor,
    excluded_offsets: Tensor,
    excluded_items: Tensor,
    ranks: Tensor,
) -> None:
    """Add to each user's rank the number of competing items of a block that do not score lower.

    Args:
        scores: (B, items of the block). Scores of items that do not compete are set to -inf.
        first: the first item of the block; the others follow it.
        target_scores: (B,).
        targets, excluded_offsets, excluded_items: see ``rank_targets``.
        ranks: (B,) int64, updated in place.
    """
    users = torch.arange(len(scores), device=scores.device)
    excluded_users = users.repeat_interleave(excluded_offsets.diff())
    for rows, items in ((excluded_users, excluded_items), (users, targets)):
        in_block = (items >= first) & (items < first + scores.shape[1])
        scores[rows[in_block], items[in_block] - first] = -torch.inf
    ranks += ((scores != -torch.inf) & ~(scores < target_scores.unsqueeze(1))).sum(1)


def count_not_lower_cpu(scores: Tensor, first: int, *arrays: Tensor) -> None:
    """``count_not_lower_reference`` in a compiled loop, for CPU tensors."""
    kernels.count_not_lower(scores.numpy(), first, *(tensor.numpy() for tensor in arrays))


def _zero_padded(rows: Tensor, size: int) -> Tensor:
    """Pad (n, D) with n <= size to (size, D), so that all products have one shape."""
    return rows if len(rows) == size else F.pad(rows, (0, 0, 0, size - len(rows)))


def top_items(
    hidden: Tensor, item_weight: Tensor, excluded_offsets: Tensor, excluded_items: Tensor, k: int
) -> tuple[Tensor, Tensor]:
    """The k items of the highest scores for each user, best first, without excluded items.

    Of items with equal scores, the one with the lower number comes first.

    Args:
        hidden, item_weight, excluded_offsets, excluded_items: see ``rank_targets``.
        k: at most N.

    Returns:
        (B, k) int64, items 1..N; and (B, k), their scores. An excluded item has the score -inf.
    """
    scores = hidden @ item_weight.T
    users = torch.arange(len(hidden), device=hidden.device)
    scores[users.repeat_interleave(excluded_offsets.diff()), excluded_items - 1] = -torch.inf
    ordered = scores.sort(dim=1, descending=True, stable=True)
    return ordered.indices[:, :k] + 1, ordered.values[:, :k]


def metrics(ranks: np.ndarray, ks: Iterable[int]) -> dict[str, float]:
    """HR@K and NDCG@K for every K, as means over users.

    With one relevant item per user, a rank of at most K gives HR@K = 1 and
    NDCG@K = 1 / log2(rank + 1); a rank above K gives 0 for both.

    Args:
        ranks: (users,), integers >= 1, of at least one user.
        ks: the values of K.
    """
    gains = 1 / np.log2(ranks + 1.0)
    ks = list(ks)
    hits = {f"HR@{k}": float(np.mean(ranks <= k)) for k in ks}
    return hits | {f"NDCG@{k}": float(np.mean(np.where(ranks <= k, gains, 0.0))) for k in ks}
