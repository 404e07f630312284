"""The base class of models that scripts.train can train, evaluate and checkpoint."""

from abc import ABC, abstractmethod
from inspect import signature
from typing import Any

from torch import Tensor, nn

from models.ops import REFERENCE, Backend
from models.packing import Packing


class SequenceModel(nn.Module, ABC):
    """A torch module that predicts the next item of packed sequences.

    ``scripts.train`` calls the constructor with the model's section of the config and
    ``num_items``. Items are 1..num_items; 0 stands for an empty slot. Sizes: R rows of L slots, K
    negatives per target, D hidden size, Q queried tokens.

    Args:
        maxlen: longest input sequence, in items.
        num_dropout_keys: what ``loss`` needs per step: one dropout key per dropout layer,
            two for attention (to tokens and to pads).

    Attributes:
        maxlen, num_dropout_keys: the arguments.
        backend: the operations that the model computes with, and the layout of its batches. The
            default is the reference backend.

    Raises:
        TypeError: the class lacks ``loss``, ``hidden_states`` or ``item_weight``.
    """

    def __init__(self, maxlen: int, num_dropout_keys: int) -> None:
        super().__init__()
        self.maxlen, self.num_dropout_keys = maxlen, num_dropout_keys
        self.backend: Backend = REFERENCE

    @abstractmethod
    def loss(
        self,
        items: Tensor,
        packing: Packing,
        targets: Tensor,
        negatives: Tensor,
        dropout_keys: Tensor | None = None,
    ) -> Tensor:
        """The training loss of a batch, a scalar. Empty slots do not contribute.

        Args:
            items: (R, L) int64, the input items.
            packing: the slots of the tokens.
            targets: (R, L) int64, the next item of each input item; 0 in an empty slot.
            negatives: (R, L, K) int64, items to score below the target; 0 in an empty slot.
            dropout_keys: (num_dropout_keys, 2) int64, two 32-bit words each; None: no dropout.

        Raises:
            ValueError: the batch does not have the layout of the backend.
        """

    @abstractmethod
    def hidden_states(self, items: Tensor, packing: Packing, slots: Tensor) -> Tensor:
        """(Q, D): the hidden states of the tokens in some slots, without dropout.

        Args:
            items: (R, L) int64, the input items.
            packing: the slots of the tokens.
            slots: (Q,) int64, ``row * L + column`` of each token.

        Raises:
            ValueError: the batch does not have the layout of the backend.
        """

    @abstractmethod
    def item_weight(self) -> Tensor:
        """(num_items, D): row i - 1 is the vector of item i.

        The score of an item is the dot product of its vector with a hidden state.
        """

    def forward(self, **inputs: Any) -> Tensor:
        """Return ``loss(**inputs)``; ``torch.func.functional_call`` needs ``forward``."""
        return self.loss(**inputs)


def check(model: SequenceModel) -> None:
    """Check the constructor and the signatures of the methods of a subclass.

    Raises:
        TypeError: the constructor does not call that of SequenceModel, or a method does not take
            the arguments of SequenceModel's method.
    """
    name = type(model).__name__
    if not hasattr(model, "backend"):
        raise TypeError(f"{name}.__init__ does not call super().__init__(maxlen, num_dropout_keys)")
    for method in sorted(SequenceModel.__abstractmethods__):
        _, *needed = signature(getattr(SequenceModel, method)).parameters
        try:
            signature(getattr(model, method)).bind(**dict.fromkeys(needed))
        except TypeError as error:
            names = ", ".join(needed) or "no argument"
            raise TypeError(f"{name}.{method} must take {names}: {error}") from None
