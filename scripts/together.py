"""Train the runs of a sweep as one program: the weights of all runs lie along a leading axis.

Runs may differ in optimizer and seed. Each keeps its own batches, negatives, dropout, optimizer and
record; their losses and gradients are computed by one vmapped call of models/plain.py. That fills a
GPU, where on top a whole step is one CUDA graph; on a CPU it is slower than run after run.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call, vmap
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from data.batches import TrainingBatch
from models.plain import Packing
from scripts.run_record import digest
from scripts.training import Step, Training, build

MAY_DIFFER = ("seed", "optimizer", "results", "tracker", "force")


def common(config: Mapping[str, Any]) -> str:
    """What runs of one program share."""
    return digest({key: value for key, value in config.items() if key not in MAY_DIFFER})


class Program:
    """The trainings' models and optimizers, each as a row of one matrix of parameters.

    The models' parameters become views of the rows, so that a training evaluates and tests itself
    as ever; ``write_back`` brings its optimizer's state up to date.
    """

    def __init__(self, trainings: Sequence[Training]) -> None:
        self.trainings = trainings
        first = trainings[0]
        self.template = build(first.config["model"], "model", num_items=first.data.num_items)
        self.template.to(first.device)
        self.shapes = {name: p.shape for name, p in self.template.named_parameters()}
        rows = [parameters_to_vector(t.model.parameters()).detach() for t in trainings]
        self.weights = torch.stack(rows)  # (runs, parameters)
        self.weights.requires_grad_()
        self.rows, self.optimizers = [], []
        for training, row in zip(trainings, self.weights.detach(), strict=True):
            vector_to_parameters(row, training.model.parameters())
            self.rows.append(torch.nn.Parameter(row))
            self.optimizers.append(self._optimizer(training, self.rows[-1]))
        self.total = torch.zeros(len(trainings), dtype=torch.float64, device=first.device)
        self.graph: torch.cuda.CUDAGraph | None = None
        self.inputs: list[Tensor] = []
        self.steps_taken = 0

    def train_epoch(self, epoch: int) -> list[float]:
        """One epoch of every run; their losses as Training.train_epoch has them."""
        start = time.perf_counter()
        self.total.zero_()
        streams = (training.batches(epoch, in_rows=True) for training in self.trainings)
        for pairs in zip(*streams, strict=True):
            users = pairs[0][0].num_users
            self._take([*_stacked(pairs, self._capacity(pairs)), np.asarray(users)])
        losses = (self.total / len(self.trainings[0].data.trainable())).tolist()  # waits for a GPU
        seconds = (time.perf_counter() - start) / len(self.trainings)
        for training in self.trainings:
            training.seconds["train"] += seconds
        return losses

    def write_back(self, run: int) -> None:
        """Give a run's training the state of its optimizer, parameter by parameter."""
        training, state = self.trainings[run], self.optimizers[run].state[self.rows[run]]
        sizes = [shape.numel() for shape in self.shapes.values()]
        parameters = training.model.parameters()
        for i, (p, shape) in enumerate(zip(parameters, self.shapes.values(), strict=True)):
            own = training.optimizer.state[p]
            for name, value in state.items():
                whole = value.ndim == 0
                own[name] = value.clone() if whole else value.split(sizes)[i].view(shape).clone()

    def _optimizer(self, training: Training, row: Tensor) -> torch.optim.Optimizer:
        optimizer = build(training.config["optimizer"], "optimizer")([row])
        for group in optimizer.param_groups:
            if row.is_cuda and "capturable" in group:
                group["capturable"] = True
        states = [training.optimizer.state[p] for p in training.model.parameters()]
        if states[0]:  # the training comes from a checkpoint
            optimizer.state[row] = {
                name: value.clone() if value.ndim == 0 else _joined(states, name)
                for name, value in states[0].items()
            }
        return optimizer

    def _capacity(self, pairs: Sequence[tuple[TrainingBatch, np.ndarray]]) -> int:
        """Rows of a step's batches; a graph's inputs never change their shape."""
        needed = max(len(batch.items) for batch, _ in pairs)
        if not self.weights.is_cuda:
            return needed
        if self.inputs and needed > self.inputs[0].shape[1]:
            self.graph, self.inputs = None, []
        return self.inputs[0].shape[1] if self.inputs else needed + needed // 8 + 1

    def _take(self, arrays: list[np.ndarray]) -> None:
        tensors = [torch.from_numpy(array) for array in arrays]
        if not self.weights.is_cuda:
            self._step(tensors)
            return
        if not self.inputs:
            self.inputs = [torch.empty_like(t, device=self.weights.device) for t in tensors]
        for kept, new in zip(self.inputs, tensors, strict=True):
            kept.copy_(new.pin_memory(), non_blocking=True)
        if self.steps_taken < 3:  # lazily made state and libraries' buffers come first
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                self._step(self.inputs)
            torch.cuda.current_stream().wait_stream(side)
        else:
            if self.graph is None:
                self.graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(self.graph):  # records, does not run
                    self._step(self.inputs)
            self.graph.replay()
        self.steps_taken += 1

    def _step(self, tensors: list[Tensor]) -> None:
        *step, users = tensors
        losses = vmap(self._loss)(self.weights, *step)
        (gradient,) = torch.autograd.grad(losses.sum(), self.weights)
        clip = self.trainings[0].config["max_grad_norm"]
        for row, optimizer, grad in zip(self.rows, self.optimizers, gradient, strict=True):
            row.grad = grad
            if clip is not None:
                torch.nn.utils.clip_grad_norm_([row], clip)
            optimizer.step()
        self.total += losses.detach() * users

    def _loss(self, weights: Tensor, items: Tensor, *rest: Tensor) -> Tensor:
        parts = weights.split([shape.numel() for shape in self.shapes.values()])
        named = zip(self.shapes.items(), parts, strict=True)
        parameters = {name: part.view(shape) for (name, shape), part in named}
        positions, starts, tokens, targets, negatives, keys = rest
        step = Step(items, Packing(positions, starts, tokens), targets, negatives, keys)
        return functional_call(self.template, parameters, tuple(step))


def _joined(states: Sequence[dict[str, Tensor]], name: str) -> Tensor:
    return torch.cat([state[name].flatten() for state in states])


def _stacked(pairs: Sequence[tuple[TrainingBatch, np.ndarray]], capacity: int) -> list[np.ndarray]:
    """A step's arrays for all runs, (runs, rows, ...) each, with empty rows at the end."""
    stacked = []
    for name in ("items", "positions", "starts", "tokens", "targets", "negatives"):
        arrays = [getattr(batch, name) for batch, _ in pairs]
        whole = np.zeros((len(pairs), capacity, *arrays[0].shape[1:]), dtype=np.int64)
        if name == "starts":  # an empty slot is its own start
            whole[:] = np.arange(whole.shape[2])
        for run, array in zip(whole, arrays, strict=True):
            run[: len(array)] = array
        stacked.append(whole)
    return [*stacked, np.stack([keys for _, keys in pairs])]
