"""Full ranking: where does the held-out item stand among all items not seen yet?"""

from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from models import kernels


def block_size(device: torch.device) -> int:
    """Users and items scored at a time; never more scores than its square are held."""
    return 512 if device.type == "cpu" else 4096


def rank_targets(
    hidden: Tensor, item_weight: Tensor, targets: Tensor, seen_offsets: Tensor, seen_items: Tensor
) -> Tensor:
    """Ranks (B,) int64 of each user's target, 1 the best, ties and NaN counted against it.

    Exact, ties included: a target's own score comes out of a product of the very shape that the
    scores come from which it is held against.

    Args:
        hidden: (B, D), one state a user.
        item_weight: (N, D), row i - 1 is item i.
        targets: (B,), items 1..N. A target is ranked even if it was seen before.
        seen_offsets, seen_items: (B + 1,) and (S,): the items out of the race for user b, from
            ``seen_offsets[b]`` on.
    """
    ranks, size = [], block_size(hidden.device)
    for first in range(0, len(hidden), size):
        part = slice(first, min(first + size, len(hidden)))
        offsets = seen_offsets[part.start : part.stop + 1]
        seen = seen_items[offsets[0] : offsets[-1]]
        offsets = offsets - offsets[0]
        ranks.append(_rank_block(hidden[part], item_weight, targets[part], offsets, seen))
    return torch.cat(ranks)


def _rank_block(
    hidden: Tensor, item_weight: Tensor, targets: Tensor, seen_offsets: Tensor, seen_items: Tensor
) -> Tensor:
    users, size = len(hidden), block_size(hidden.device)
    states = _filled(hidden, size)
    wanted = (states @ _filled(item_weight[targets - 1], size).T).diagonal()[:users].contiguous()
    ranks = torch.ones_like(targets)
    count = compiled_count if hidden.device.type == "cpu" else plain_count
    scores = hidden.new_empty(size, size)
    race = wanted, targets, seen_offsets, seen_items, ranks
    for first in range(0, len(item_weight), size):
        block = item_weight[first : first + size]
        torch.mm(states, _filled(block, size).T, out=scores)
        count(scores[:users, : len(block)], first + 1, *race)
    return ranks


def plain_count(
    scores: Tensor,
    first: int,
    wanted: Tensor,
    targets: Tensor,
    seen_offsets: Tensor,
    seen_items: Tensor,
    ranks: Tensor,
) -> None:
    """Add to ``ranks`` how many of the items ``first``, ``first + 1``, ... come before the target.

    Args:
        scores: (B, items) of these items; written to. wanted: (B,) of the targets.
    """
    users = torch.arange(len(scores), device=scores.device)
    seen_users = users.repeat_interleave(seen_offsets.diff())
    for who, items in ((seen_users, seen_items), (users, targets)):
        here = (items >= first) & (items < first + scores.shape[1])
        scores[who[here], items[here] - first] = -torch.inf
    ranks += ((scores != -torch.inf) & ~(scores < wanted.unsqueeze(1))).sum(1)


def compiled_count(scores: Tensor, first: int, *race: Tensor) -> None:
    kernels.count_ahead(scores.numpy(), first, *(tensor.numpy() for tensor in race))


def _filled(rows: Tensor, size: int) -> Tensor:
    """(at most size, D) with zeros below, so that all products are of one shape."""
    return rows if len(rows) == size else F.pad(rows, (0, 0, 0, size - len(rows)))


def metrics(ranks: np.ndarray, ks: Iterable[int]) -> dict[str, float]:
    """HR@K and NDCG@K = 1/log2(rank + 1) with one relevant item: means over users."""
    gains = 1 / np.log2(ranks + 1.0)
    ks = list(ks)
    hits = {f"HR@{k}": float(np.mean(ranks <= k)) for k in ks}
    return hits | {f"NDCG@{k}": float(np.mean(np.where(ranks <= k, gains, 0.0))) for k in ks}
