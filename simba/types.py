"""What the step is made of: a variant's functions, and one parameter with its memory."""

from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any, NamedTuple

from torch import Tensor


class Function(NamedTuple):
    """A function of simba/directions.py and the names of its arguments."""

    function: Callable[..., Any]
    arguments: tuple[str, ...]

    @classmethod
    def of(cls, function: Callable[..., Any]) -> "Function":
        return cls(function, tuple(signature(function).parameters))

    def __call__(self, values: Mapping[str, Any]) -> Any:
        return self.function(*(values[name] for name in self.arguments))


class Variant:
    """A variant's functions, and what they take.

    Attributes:
        vote, direction: its functions; without a vote it sees the gradient itself.
        names: the names of its memories; ``remember[i]`` is the new value of ``names[i]``.
        scaled: it needs the size of its gradients (x).
        random: it needs random numbers.
        windowed: it needs the place of its oldest sign.
    """

    def __init__(
        self,
        vote: Callable[..., Tensor] | None,
        direction: Callable[..., Tensor],
        remember: Mapping[str, Callable[..., Tensor]],
    ) -> None:
        self.vote = None if vote is None else Function.of(vote)
        self.direction = Function.of(direction)
        self.names = tuple(remember)
        self.remember = tuple(Function.of(function) for function in remember.values())
        seen = () if self.vote is None else (self.vote,)
        self.functions = (*seen, self.direction, *self.remember)
        self.arguments = {name for f in self.functions for name in f.arguments}
        self.scaled = "x" in self.arguments
        self.random = bool({"noise_s", "noise_e"} & self.arguments)
        self.windowed = "place" in self.arguments
        self.by_tensor = self.scaled or self.random or self.windowed


class ParamState(NamedTuple):
    """A parameter with its gradient and memory, all of one shape.

    ``own`` holds the numbers of this tensor and step: ``inv_spacing`` (1 / the distance between two
    votes), ``key``, ``rounding`` and ``first`` of its noise, ``place`` in its window of signs; see
    simba/per_tensor.py.
    """

    p: Tensor
    g: Tensor
    memory: tuple[Tensor, ...]
    own: dict[str, Any]

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return (self.p, self.g, *self.memory)
