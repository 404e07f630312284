"""The operations of the models, and the choice of their implementation for a device.

``reference`` uses torch operations: it supports every device, every float dtype and torch.vmap.
``cpu`` computes the same in compiled loops, for float32 on a CPU. Tests compare the two.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from models.ops import cpu, reference
from models.packing import Layout, Packing


class Operations(Protocol):
    """The functions that ``reference`` and ``cpu`` both define.

    Sizes: R rows of L slots, D hidden size, H heads, W = D / H, K negatives per target, M the
    model's maxlen, Q queried tokens.

    Dropout is a pure function. A layer gives each element an index. The element is dropped if a
    32-bit hash of this index and the layer's dropout key exceeds a threshold. The same seed
    therefore drops the same elements on a CPU, on a GPU, in both layouts and in joint training. A
    dropout key is two 32-bit words, (2,) int64, drawn for each step and layer. None stands for no
    dropout.
    """

    def dropout(self, x: Tensor, rate: float, key: Tensor | None, tokens: Tensor) -> Tensor:
        """Dropout of x (..., D); ``tokens`` (...) int64 are the numbers of the tokens.

        Element d of token t has the index t * D + d. Kept elements are divided by 1 - rate.
        """

    def dropout_add_norm(
        self,
        x: Tensor,
        bias: Tensor,
        residual: Tensor,
        norm: nn.LayerNorm,
        rate: float,
        key: Tensor | None,
        tokens: Tensor,
    ) -> Tensor:
        """LayerNorm(residual + dropout(x + bias)): x and residual (..., D), bias (D,)."""

    def gelu(self, x: Tensor, bias: Tensor) -> Tensor:
        """GELU(x + bias), exact, not by tanh: x (..., F), bias (F,)."""

    def embed(self, weight: Tensor, items: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor]:
        """The embeddings of the input items and of the items to score, gathered in one operation.

        Args:
            weight: (num_items + 1, D); row i is the embedding of item i.
            items: (R, L) int64.
            candidates: (R, L, 1 + K) int64.

        Returns:
            (R, L, D) and (R, L, 1 + K, D).
        """

    def bce(self, hidden: Tensor, embedded: Tensor, mask: Tensor) -> Tensor:
        """Binary cross-entropy, a scalar: mean softplus(-positive) + mean softplus(negative).

        A score is the dot product of a token's hidden state and a candidate's embedding.

        Args:
            hidden: (R, L, D).
            embedded: (R, L, 1 + K, D), the target's embedding first, then the negatives'.
            mask: (R, L) bool, whether a slot holds a token. The means are over these slots.
        """

    def attention(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        packing: Packing,
        maxlen: int,
        heads: int,
        rate: float,
        dropout_keys: Tensor | None,
        pad_kv: Tensor | None = None,
    ) -> Tensor:
        """Causal attention (R, L, D): ``softmax(q k^T / sqrt(W)) v`` per head.

        A token attends to the tokens of its sequence up to and including itself.

        For dropout, the weight with which token t and head h attend to the token j positions before
        t has the index (t * H + h) * M + j under the first dropout key. The weight of pad j has
        the same index under the second dropout key.

        Args:
            q, k, v: (R, L, D).
            maxlen: M, at least the length of the longest sequence (not checked).
            rate: the dropout rate of attention weights; 0: no dropout.
            dropout_keys: (2, 2) int64, the keys for the weights of tokens and of pads; None: no
                dropout.
            pad_kv: (2, D), the attention key and the value of every pad. A token then also attends
                to the pads that left-padding to maxlen would put before its sequence. They enter
                the softmax as one key whose weight is multiplied by the number of pads. Each pad is
                dropped separately.
        """

    def attention_at(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        slots: Tensor,
        packing: Packing,
        heads: int,
        pad_kv: Tensor | None = None,
    ) -> Tensor:
        """The outputs (Q, D) of ``attention`` for the tokens in some slots, without dropout.

        Args:
            q: (Q, D), the queries of these tokens.
            k, v: (R, L, D), the keys and values of all tokens.
            slots: (Q,) int64, ``row * L + column`` of each queried token.
            pad_kv: see ``attention``.
        """


@dataclass(frozen=True)
class Backend:
    """Operations and the batch layout that they are used with.

    Raises:
        ValueError: the operations do not support the layout.
    """

    ops: Operations
    layout: Layout

    def __post_init__(self) -> None:
        if self.ops is cpu and self.layout != "flat":
            raise ValueError(f"models.ops.cpu takes flat batches only, not {self.layout!r}")

    def ops_for(self, packing: Packing) -> Operations:
        """The operations, after a check of the batch's layout.

        Raises:
            ValueError: the batch does not have the backend's layout.
        """
        if packing.layout != self.layout:
            raise ValueError(
                f"the batch's layout is {packing.layout!r}, the model's backend takes "
                f"{self.layout!r}: make batches with layout=model.backend.layout"
            )
        return self.ops


CPU = Backend(cpu, "flat")
REFERENCE = Backend(reference, "rows")


def backend_for(device: torch.device) -> Backend:
    """The fastest backend for a device: compiled loops on a CPU, torch operations elsewhere."""
    return CPU if device.type == "cpu" else REFERENCE
