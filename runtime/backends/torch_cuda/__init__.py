"""torch on an NVIDIA GPU: the bundle's own graph, fused, in captured CUDA graphs."""

from stpm.runtime.backends.torch_cuda.engine import TorchCudaEngine, load
from stpm.runtime.backends.torch_cuda.network import check_graph

__all__ = ["TorchCudaEngine", "check_graph", "load"]
