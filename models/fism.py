"""A factorization model without hidden layers, after FISM (Kabbur et al. 2013)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.checks import require_maxlen, require_rate, require_size
from models.contract import SequenceModel
from models.packing import Packing


class FISM(SequenceModel):
    """Scores an item by the product of its vector with the mean vector of the user's items.

    The score of item j after the items 1..t of a user is ``q_j . mean(p_1, ..., p_t)``. In FISM
    (Kabbur, Ning and Karypis, KDD 2013), the sum is divided by ``t ** alpha``, and the item itself
    is left out of it. Here alpha is 1; no item is left out: the target is the next item, which
    is in the sum only if the user repeats it. There are no biases.

    Args:
        num_items: items are 1..num_items.
        maxlen: longest input sequence, in items.
        hidden: D, the size of p and q.
        dropout: dropout rate of the mean.

    Raises:
        ValueError: a size or the rate is out of its range.
    """

    def __init__(self, num_items: int, maxlen: int, hidden: int, dropout: float) -> None:
        require_maxlen(maxlen)
        require_size("hidden", hidden)
        require_rate("dropout", dropout)
        super().__init__(maxlen, num_dropout_keys=1)
        self.dropout = dropout
        # Row 0 of both is for empty slots.
        self.history = nn.Embedding(num_items + 1, hidden)  # p
        self.item = nn.Embedding(num_items + 1, hidden)  # q
        for table in (self.history, self.item):
            nn.init.normal_(table.weight, std=hidden**-0.5)

    def loss(
        self,
        items: Tensor,
        packing: Packing,
        targets: Tensor,
        negatives: Tensor,
        dropout_keys: Tensor | None = None,
    ) -> Tensor:
        """Binary cross-entropy, as for SASRec; see ``SequenceModel.loss``."""
        ops = self.backend.ops_for(packing)
        candidates = torch.cat([targets.unsqueeze(-1), negatives], dim=-1)
        x = F.embedding(items, self.history.weight)
        zero = torch.zeros_like(x)  # with scores of 0, attention is a mean
        mean = ops.attention(zero, zero, x, packing, self.maxlen, 1, 0.0, None)
        mean = ops.dropout(
            mean, self.dropout, None if dropout_keys is None else dropout_keys[0], packing.tokens
        )
        return ops.bce(mean, F.embedding(candidates, self.item.weight), targets > 0)

    def hidden_states(self, items: Tensor, packing: Packing, slots: Tensor) -> Tensor:
        ops = self.backend.ops_for(packing)
        x = F.embedding(items, self.history.weight)
        zero = torch.zeros_like(x)
        return ops.attention_at(zero.flatten(0, 1)[slots], zero, x, slots, packing, 1)

    def item_weight(self) -> Tensor:
        return self.item.weight[1:]
