"""Convolution weights as they are deployed: batch norm folded in, rounded to half precision."""

from __future__ import annotations

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def fold_batch_norm(network: nn.Module) -> None:
    """Fold every batch norm that follows a convolution into its weights, in place."""
    modules = dict(network.named_modules())
    for node in _LayerTracer().trace(network).nodes:
        source = node.args[0] if node.args else None
        if (
            node.op == "call_module"
            and isinstance(modules[node.target], nn.BatchNorm2d)
            and isinstance(source, fx.Node)
            and isinstance(modules.get(str(source.target)), nn.Conv2d)
            and len(source.users) == 1
        ):
            name = str(source.target)
            folded = fuse_conv_bn_eval(modules[name], modules[node.target])
            network.set_submodule(name, folded)
            network.set_submodule(node.target, nn.Identity())


def round_weights(network: nn.Module, dtype: torch.dtype) -> None:
    """Round convolutions to a precision so that each filter keeps its sum, in place.

    What one weight loses is passed on to the next of its filter (error diffusion). Inputs after a
    ReLU are all positive: errors that add up would shift every output of the filter.
    """
    if dtype == torch.float32:
        return
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            weights = module.weight.detach().double().flatten(1)
            rounded = torch.empty_like(weights)
            lost = torch.zeros(len(weights), dtype=torch.float64)
            for i, column in enumerate(weights.T):
                wished = column + lost
                rounded[:, i] = wished.to(dtype)
                lost = wished - rounded[:, i]
            with torch.no_grad():
                module.weight.copy_(rounded.view_as(module.weight))


class _LayerTracer(fx.Tracer):
    """Keeps convolutions whole that a package derives from torch's own."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, nn.Conv2d) or super().is_leaf_module(m, module_qualified_name)
