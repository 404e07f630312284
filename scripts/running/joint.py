"""Joint training: train several runs of a sweep together, with their weights in one tensor.

The runs may differ in optimizer and seed. Each has its own batches, negatives, dropout, optimizer
and record. One vmapped call of the model computes the losses and gradients of all runs, which uses
a GPU better than a single run. On a GPU, a whole step is one CUDA graph. On a CPU, joint training
is slower than one run after the other.
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
from models.ops import REFERENCE
from models.packing import model_inputs
from scripts.records.record import digest
from scripts.running.training import Training, build, build_model

BACKEND = REFERENCE  # on every device, because vmap needs torch operations
# Runs of one joint training may differ in these keys alone; all others shape the shared batches,
# model and schedule, or what is recorded.
MAY_DIFFER = ("seed", "optimizer", "results", "tracker", "force", "save_best")


def joint_key(config: Mapping[str, Any]) -> str:
    """A hash of the settings that runs must share to be trained jointly."""
    return digest({key: value for key, value in config.items() if key not in MAY_DIFFER})


class JointTraining:
    """Several trainings whose parameters are the rows of one matrix (runs, parameters).

    The parameters of each training's model become views of its row, so the training can evaluate
    its model as usual. ``write_back`` copies the optimizer state of a row to its training.

    Args:
        trainings: trainings whose configs have the same ``joint_key``.
    """

    def __init__(self, trainings: Sequence[Training]) -> None:
        self.trainings = trainings
        first = trainings[0]
        self.template = build_model(first.config["model"], first.data.num_items).to(first.device)
        self.template.backend = BACKEND
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
        self.inputs: dict[str, Tensor] = {}
        self.steps_taken = 0

    def train_epoch(self, epoch: int) -> list[float]:
        """Train every run for one epoch; returns the losses as ``Training.train_epoch`` does."""
        start = time.perf_counter()
        self.total.zero_()
        streams = (training.batches(epoch, BACKEND.layout) for training in self.trainings)
        for pairs in zip(*streams, strict=True):
            users = pairs[0][0].num_users
            arrays = _stacked(pairs, self._capacity(pairs))
            self._take_step({**arrays, "users": np.asarray(users)})
        # tolist waits for the GPU
        losses = (self.total / len(self.trainings[0].data.trainable())).tolist()
        seconds = (time.perf_counter() - start) / len(self.trainings)
        for training in self.trainings:
            training.seconds["train"] += seconds
        return losses

    def write_back(self, run: int) -> None:
        """Copy the optimizer state of a run's row to its training, parameter by parameter."""
        training, state = self.trainings[run], self.optimizers[run].state[self.rows[run]]
        sizes = [shape.numel() for shape in self.shapes.values()]
        parameters = training.model.parameters()
        for i, (p, shape) in enumerate(zip(parameters, self.shapes.values(), strict=True)):
            state_of_p = training.optimizer.state[p]
            for name, value in state.items():
                whole = value.ndim == 0
                state_of_p[name] = (
                    value.clone() if whole else value.split(sizes)[i].view(shape).clone()
                )

    def _optimizer(self, training: Training, row: Tensor) -> torch.optim.Optimizer:
        optimizer = build(training.config["optimizer"], "optimizer")([row])
        for group in optimizer.param_groups:
            if row.is_cuda and "capturable" in group:
                group["capturable"] = True
        states = [training.optimizer.state[p] for p in training.model.parameters()]
        if states[0]:  # the training was resumed from a checkpoint
            optimizer.state[row] = {
                name: value.clone() if value.ndim == 0 else _concatenate(states, name)
                for name, value in states[0].items()
            }
        return optimizer

    def _capacity(self, pairs: Sequence[tuple[TrainingBatch, np.ndarray]]) -> int:
        """The number of batch rows to allocate. The inputs of a CUDA graph have a fixed shape.

        It discards the graph if the batch needs more rows than the graph's inputs have.
        """
        needed = max(len(batch.items) for batch, _ in pairs)
        if not self.weights.is_cuda:
            return needed
        if self.inputs and needed > self.inputs["items"].shape[1]:
            self.graph, self.inputs = None, {}
        return self.inputs["items"].shape[1] if self.inputs else needed + needed // 8 + 1

    def _take_step(self, arrays: dict[str, np.ndarray]) -> None:
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        if not self.weights.is_cuda:
            self._step(tensors)
            return
        if not self.inputs:
            device = self.weights.device
            self.inputs = {k: torch.empty_like(t, device=device) for k, t in tensors.items()}
        for name, tensor in tensors.items():
            self.inputs[name].copy_(tensor.pin_memory(), non_blocking=True)
        if self.steps_taken < 3:  # these steps create optimizer state and library buffers
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                self._step(self.inputs)
            torch.cuda.current_stream().wait_stream(side)
        else:
            if self.graph is None:
                self.graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(self.graph):  # records the step without running it
                    self._step(self.inputs)
            self.graph.replay()
        self.steps_taken += 1

    def _step(self, tensors: dict[str, Tensor]) -> None:
        batches = {name: tensor for name, tensor in tensors.items() if name != "users"}
        losses = vmap(self._loss)(self.weights, batches)
        (gradient,) = torch.autograd.grad(losses.sum(), self.weights)
        clip = self.trainings[0].config["max_grad_norm"]
        for row, optimizer, grad in zip(self.rows, self.optimizers, gradient, strict=True):
            row.grad = grad
            if clip is not None:
                torch.nn.utils.clip_grad_norm_([row], clip)
            optimizer.step()
        self.total += losses.detach() * tensors["users"]

    def _loss(self, weights: Tensor, batch: dict[str, Tensor]) -> Tensor:
        parts = weights.split([shape.numel() for shape in self.shapes.values()])
        named = zip(self.shapes.items(), parts, strict=True)
        parameters = {name: part.view(shape) for (name, shape), part in named}
        inputs = model_inputs(batch, BACKEND.layout)
        return functional_call(self.template, parameters, (), inputs)


def _concatenate(states: Sequence[dict[str, Tensor]], name: str) -> Tensor:
    return torch.cat([state[name].flatten() for state in states])


def _stacked(
    pairs: Sequence[tuple[TrainingBatch, np.ndarray]], capacity: int
) -> dict[str, np.ndarray]:
    """Stack the batches of all runs to arrays (runs, capacity, ...), padded with empty rows."""
    stacked = {"dropout_keys": np.stack([dropout_keys for _, dropout_keys in pairs])}
    per_run = [batch.arrays() for batch, _ in pairs]
    for name, array in per_run[0].items():
        stacked[name] = np.zeros((len(pairs), capacity, *array.shape[1:]), dtype=np.int64)
    stacked["starts"][:] = np.arange(stacked["starts"].shape[2])  # of empty slots: their own column
    for run, arrays in enumerate(per_run):
        for name, array in arrays.items():
            stacked[name][run, : len(array)] = array
    return stacked
