"""Runs a graph with its independent parts side by side, on a CUDA stream each."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

STREAM_OF = {"teacher": 0, "student": 1, "distance": 2}
"""The stream of a node's scope; all others, and the result, are on the first."""
STREAM_COUNT = 3


@dataclass
class Step:
    """A node to run.

    Attributes:
        node: a call.
        stream: index of the stream that it runs on.
        waits: nodes of other streams whose results it takes.
        frees: nodes whose results nobody takes afterwards.
    """

    node: fx.Node
    stream: int
    waits: list[fx.Node] = field(default_factory=list)
    frees: list[fx.Node] = field(default_factory=list)


class Schedule:
    """The calls of a graph in order, with what each waits for and what can be freed after it."""

    def __init__(self, module: fx.GraphModule) -> None:
        """Plan a graph with one input, whose constants are buffers of the module."""
        self._module = module
        self._output = next(node for node in module.graph.nodes if node.op == "output")
        calls = [node for node in module.graph.nodes if node.op == "call_function"]
        self.steps = [Step(node, STREAM_OF.get(node.meta["scope"], 0)) for node in calls]
        of = {step.node: step for step in self.steps}
        self._shared: set[fx.Node] = set()
        for step in self.steps:
            for source in step.node.all_input_nodes:
                if source in of and of[source].stream != step.stream:
                    step.waits.append(source)
                    self._shared.add(source)
        for node in calls:
            users = [user for user in node.users if user in of]
            # What another stream reads lives to the end: its memory must not be given away before.
            if node not in self._shared and self._output not in node.users and users:
                max((of[user] for user in users), key=self.steps.index).frees.append(node)

    def run(self, images: Tensor, streams: Sequence[torch.cuda.Stream] = ()) -> tuple[Any, ...]:
        """Run the graph.

        Args:
            images: its input.
            streams: the side streams, `STREAM_COUNT` - 1; the current one is the first. None runs
                one call after the other.

        Returns:
            The graph's outputs, complete once the current stream has come so far.
        """
        lanes: list[Any] = [torch.cuda.current_stream(), *streams] if streams else []
        values: dict[fx.Node, Any] = {
            node: images if node.op == "placeholder" else self._module.get_buffer(str(node.target))
            for node in self._module.graph.nodes
            if node.op in ("placeholder", "get_attr")
        }
        for lane in lanes[1:]:
            lane.wait_stream(lanes[0])
        done: dict[fx.Node, torch.cuda.Event] = {}
        for step in self.steps:
            for source in step.waits if lanes else ():
                lanes[step.stream].wait_event(done[source])
            arguments, settings = fx.node.map_arg(
                (step.node.args, step.node.kwargs), values.__getitem__
            )
            with _on(lanes, step.stream):
                values[step.node] = step.node.target(*arguments, **settings)  # type: ignore[operator]
            if lanes and step.node in self._shared:
                done[step.node] = lanes[step.stream].record_event()
            for node in step.frees:
                del values[node]
        for lane in lanes[1:]:
            lanes[0].wait_stream(lane)
        return tuple(values[node] for node in self._output.args[0])


def _on(lanes: Sequence[Any], index: int) -> AbstractContextManager[Any]:
    return torch.cuda.stream(lanes[index]) if lanes and index else nullcontext()
