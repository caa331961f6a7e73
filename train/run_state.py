"""Where a training run stands: what the trainers of all methods share."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stpm.runtime.errors import StpmError
from stpm.train.backbones import StateDict
from stpm.train.options import FitOptions, Precision

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class RunState:
    """The epochs so far and the best student; see `stpm.train.methods.Trainer`."""

    def __init__(self, options: FitOptions) -> None:
        self.options = options
        self.device = resolve_device(options.device)
        self.dtype = torch.float32
        self.epoch = self.written_epoch = 0
        self.best_epoch = 0
        self.best_held_out = float("inf")
        self.best_student: StateDict = {}

    def finish_epoch(self, held_out: float, student: nn.Module) -> bool:
        """Count an epoch and remember its student if none was better; returns whether so."""
        self.epoch += 1
        is_best = held_out < self.best_held_out
        if is_best:
            self.best_epoch, self.best_held_out = self.epoch, held_out
            self.best_student = copied(student.state_dict())
        return is_best

    def resume_state(self) -> dict[str, Any]:
        """Return a copy of what `load_resume_state` needs to continue; never empty."""
        return {
            "epoch": self.epoch,
            "best_epoch": self.best_epoch,
            "best_held_out": self.best_held_out,
        }

    def load_resume_state(self, state: dict[str, Any], best_student: dict[str, Tensor]) -> None:
        """Continue from `resume_state`."""
        self.epoch, self.best_epoch = state["epoch"], state["best_epoch"]
        self.written_epoch = self.epoch
        self.best_held_out, self.best_student = state["best_held_out"], best_student


class OptimisedRunState(RunState):
    """With a student that is trained by gradient descent, in a precision of its own."""

    def __init__(self, options: FitOptions, student: nn.Module) -> None:
        """Prepare a student; it is moved to the device in place.

        Args:
            options: of the run.
            student: whose state is kept.
        """
        super().__init__(options)
        self.dtype = resolve_precision(options.precision, self.device)
        self.student = student.to(self.device)
        self.optimiser = self.make_optimiser(student.parameters())
        # bf16 has FP32's range; only FP16's gradients need scaling.
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype is torch.float16)

    def make_optimiser(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Return the method's optimiser of the student's parameters."""
        raise NotImplementedError

    def constant_rate(self) -> Tensor | float:
        """Return the learning rate for an optimiser: on a GPU a tensor there.

        A captured step then reads it anew, and updates all weights in few launches.
        """
        rate = self.options.learning_rate
        return torch.tensor(rate, device=self.device) if self.device.type == "cuda" else rate

    def cool_down(self, share_done: float) -> None:
        """Set the learning rate of the next step.

        Args:
            share_done: of this epoch's steps.
        """
        options = self.options
        share_left = 1 - (self.epoch + share_done) / options.epochs
        rate = options.learning_rate
        if share_left < options.cooldown:
            rate *= share_left / options.cooldown
        for group in self.optimiser.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)  # which a captured step reads anew
            else:
                group["lr"] = rate

    def resume_state(self) -> dict[str, Any]:
        """Return a copy of what continuing with the same weights needs, bit for bit."""
        kept = {
            "student": self.student.state_dict(),
            "optimiser": {"state": self.optimiser.state_dict()["state"]},
        }
        return super().resume_state() | copied(kept) | {"scaler": self.scaler.state_dict()}

    def load_resume_state(self, state: dict[str, Any], best_student: dict[str, Tensor]) -> None:
        """Continue from `resume_state`."""
        super().load_resume_state(state, best_student)
        self.student.load_state_dict(state["student"])
        # The rates are the options', and may stand on another device than they did.
        own = {"param_groups": self.optimiser.state_dict()["param_groups"]}
        self.optimiser.load_state_dict(state["optimiser"] | own)
        self.scaler.load_state_dict(state["scaler"])

    def autocast(self) -> torch.autocast:
        """Run what is inside in the run's precision."""
        return autocast_to(self.dtype, self.device)

    def check_finite(self, name: str, value: float) -> None:
        """Raise StpmError for a loss or a map that is not finite."""
        if not np.isfinite(value):
            raise StpmError(
                f"the {name} is {value} in epoch {self.epoch + 1}, expected a finite number; "
                "lower --learning-rate or train with --precision fp32."
            )


def resolve_device(device: str) -> torch.device:
    """Turn "auto" into the GPU where there is one.

    Raises:
        StpmError: a GPU is asked for and there is none.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise StpmError("got --device cuda, but torch finds no GPU; use --device cpu.")
    return torch.device(device)


def resolve_precision(precision: Precision, device: torch.device) -> torch.dtype:
    """Turn "auto" into bf16 where the hardware computes in it, FP32 elsewhere.

    Raises:
        StpmError: FP16 is asked for on a processor that only imitates it.
    """
    if precision == "fp16" and device.type == "cpu" and not _processor_computes_fp16():
        raise StpmError(
            "got --precision fp16, but this processor has no FP16 arithmetic and emulates "
            "it far too slowly to train; use --precision auto."
        )
    if precision != "auto":
        return DTYPES[precision]
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if native else torch.float32


def _processor_computes_fp16() -> bool:
    return bool(torch.ops.mkldnn._is_mkldnn_fp16_supported())


def autocast_to(dtype: torch.dtype, device: torch.device) -> torch.autocast:
    """Run what is inside in a precision; FP32 changes nothing.

    Nothing is gained by keeping converted weights, which each pass uses once, and what a CUDA graph
    converts stands in the graph's own memory.
    """
    enabled = dtype is not torch.float32
    return torch.autocast(device.type, dtype, enabled=enabled, cache_enabled=False)


def copied(tree: dict[Any, Any]) -> dict[Any, Any]:
    """Copy dictionaries of tensors, nested or not, so that training on leaves them as they are.

    All tensors of a type are copied at once: on a GPU one by one, after each epoch, a copy of the
    run takes longer than a step.
    """
    pairs: defaultdict[tuple[torch.device, torch.dtype], list[tuple[Tensor, Tensor]]]
    pairs = defaultdict(list)

    def blank(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: blank(part) for key, part in value.items()}
        made = torch.empty_like(value)
        pairs[value.device, value.dtype].append((made, value.detach()))
        return made

    made: dict[Any, Any] = blank(tree)
    for of_a_type in pairs.values():
        targets, sources = zip(*of_a_type, strict=True)
        torch._foreach_copy_(targets, sources)
    return made
