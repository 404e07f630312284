"""Full ranking: where does the held-out item stand among all items not seen yet?"""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor


def rank_targets(
    hidden: Tensor, item_weight: Tensor, targets: Tensor, seen_users: Tensor, seen_items: Tensor
) -> Tensor:
    """Ranks (B,) int64 of each user's target, 1 the best, ties and NaN counted against it.

    Args:
        hidden: (B, D), one state a user.
        item_weight: (N, D), row i - 1 is item i.
        targets: (B,), items 1..N. A target is ranked even if it was seen before.
        seen_users, seen_items: (S,) each: pairs of a row of ``hidden`` and an item out of the race.
    """
    scores = hidden @ item_weight.T
    target_scores = scores.gather(1, targets.unsqueeze(1) - 1)
    scores[seen_users, seen_items - 1] = -torch.inf
    scores.scatter_(1, targets.unsqueeze(1) - 1, target_scores)
    return scores.shape[1] - (scores < target_scores).sum(1)


def metrics(ranks: np.ndarray, ks: Iterable[int]) -> dict[str, float]:
    """HR@K and NDCG@K = 1/log2(rank + 1) with one relevant item: means over users."""
    gains = 1 / np.log2(ranks + 1.0)
    ks = list(ks)
    hits = {f"HR@{k}": float(np.mean(ranks <= k)) for k in ks}
    return hits | {f"NDCG@{k}": float(np.mean(np.where(ranks <= k, gains, 0.0))) for k in ks}
