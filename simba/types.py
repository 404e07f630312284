"""The types that a step works on: a variant's functions, and a parameter with its memories."""

from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any, NamedTuple

from torch import Tensor


class NamedFunction(NamedTuple):
    """A function of simba/directions.py and its arguments' names."""

    function: Callable[..., Any]
    arguments: tuple[str, ...]

    @classmethod
    def of(cls, function: Callable[..., Any]) -> "NamedFunction":
        """The function with the names in its signature."""
        return cls(function, tuple(signature(function).parameters))

    def __call__(self, values: Mapping[str, Any]) -> Any:
        """Call it with the values that its arguments name."""
        return self.function(*(values[name] for name in self.arguments))


class Variant:
    """The functions of a variant and the names of their arguments.

    Attributes:
        vote: None if the other functions do not use a vote q.
        direction: the direction of the step.
        names: the names of the memories.
        remember: ``remember[i]`` computes the new value of memory ``names[i]``.
        functions: all functions above.
        arguments: the names of all their arguments.
        scaled: a function takes x, so the tensor needs a scale.
        random: a function takes random numbers.
        windowed: a function takes ``place``, the position of the oldest sign.
        has_per_tensor_state: ``scaled``, ``random`` or ``windowed`` is true, so the variant needs
            the state of simba/per_tensor.py.
    """

    def __init__(
        self,
        vote: Callable[..., Tensor] | None,
        direction: Callable[..., Tensor],
        remember: Mapping[str, Callable[..., Tensor]],
    ) -> None:
        self.vote = None if vote is None else NamedFunction.of(vote)
        self.direction = NamedFunction.of(direction)
        self.names = tuple(remember)
        self.remember = tuple(NamedFunction.of(function) for function in remember.values())
        votes = () if self.vote is None else (self.vote,)
        self.functions = (*votes, self.direction, *self.remember)
        self.arguments = {name for f in self.functions for name in f.arguments}
        self.scaled = "x" in self.arguments
        self.random = bool({"noise_s", "noise_e"} & self.arguments)
        self.windowed = "place" in self.arguments
        self.has_per_tensor_state = self.scaled or self.random or self.windowed


class ParamState(NamedTuple):
    """A parameter with its gradient and memories, all of one shape (``signs`` has planes first).

    ``step_values`` holds the values of this tensor and step, for variants with per-tensor state
    and for stochastic rounding; simba/per_tensor.py lists them. It is empty otherwise.
    """

    p: Tensor
    g: Tensor
    memory: tuple[Tensor, ...]
    step_values: dict[str, Any]

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """p, g and the memories."""
        return (self.p, self.g, *self.memory)
