"""A stand-in for a GPU: its tensors say they are on `cuda:0`, and live on the CPU.

As on a GPU, an operation that mixes devices fails, and so does the way to NumPy without `cpu()`. No kernel of a GPU
runs: speed, memory and half precision are not tested. `cuda.c`, preloaded, answers what PyTorch asks of CUDA.
"""

from types import SimpleNamespace
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

aten = torch.ops.aten
GPU = torch.device("cuda:0")
COPIES = aten.copy_.default, aten._to_copy.default
INDEXING = aten.index.Tensor, aten.index_put_.default, aten._index_put_impl_.default


class OnGpu(torch.Tensor):
    """A tensor of the GPU, with its values in `values`."""

    values: Any

    @staticmethod
    def __new__(cls, values: torch.Tensor) -> "OnGpu":
        layout = {"strides": values.stride(), "storage_offset": values.storage_offset(), "dtype": values.dtype}
        tensor = torch.Tensor._make_wrapper_subclass(cls, values.size(), device=GPU, **layout)
        tensor.values = values
        return tensor

    @classmethod
    def __torch_dispatch__(cls, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(op, args, kwargs or {})


class Dispatch(TorchDispatchMode):
    """Sees all operations of a thread, also those that create a tensor or copy it to the GPU."""

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(op, args, kwargs or {})


def run(op: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Run an operation on the CPU; its result is on the device on which a GPU's would be."""
    tensors = [value for value in tree_leaves((args, kwargs)) if isinstance(value, torch.Tensor)]
    to_gpu = any(isinstance(tensor, OnGpu) for tensor in tensors)
    if op in INDEXING and isinstance(args[0], OnGpu):
        tensors = [args[0], *args[2:3]]  # its indices may be on the CPU
    if to_gpu and op not in COPIES and any(tensor.ndim and not isinstance(tensor, OnGpu) for tensor in tensors):
        raise RuntimeError(f"{op}: expected all tensors to be on the same device")
    if op is aten.copy_.default:
        to_gpu = isinstance(args[0], OnGpu)
    if kwargs.get("device") is not None:
        to_gpu = torch.device(kwargs["device"]).type == "cuda"
        kwargs = kwargs | {"device": "cpu", "pin_memory": False}
    values = tree_map(lambda value: value.values if isinstance(value, OnGpu) else value, (args, kwargs))
    result = op(*values[0], **values[1])
    if op._schema.is_mutable and result is not None:  # in place
        return kwargs.get("out", args[0])
    return tree_map(lambda x: OnGpu(x) if to_gpu and isinstance(x, torch.Tensor) else x, result)


def install() -> None:
    """Make PyTorch see one GPU in this thread."""
    cuda: Any = torch.cuda
    cuda.is_available, cuda.device_count, cuda.mem_get_info = lambda: True, lambda: 1, lambda *args: (1 << 29, 1 << 30)
    cuda.get_device_properties = lambda *args: SimpleNamespace(name="stand-in", total_memory=1 << 30)
    for name in ("memory_reserved", "memory_allocated", "max_memory_allocated"):
        setattr(cuda, name, lambda *args: 1 << 20)
    ignored = "_lazy_init", "synchronize", "empty_cache", "reset_peak_memory_stats", "manual_seed", "manual_seed_all"
    for name in ignored:
        setattr(cuda, name, lambda *args: None)
    torch.backends.cudnn.enabled = False
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    patched: Any = torch
    patched.inference_mode = lambda mode=True: torch.no_grad()  # refuses tensors of other classes
    patch_constructors(patched, patched.Tensor)
    Dispatch().__enter__()


def patch_constructors(module: Any, cls: Any) -> None:
    """Let tensors of Python values be made on the CPU first: PyTorch doesn't dispatch their way to the GPU."""
    tensor, getitem, setitem = module.tensor, cls.__getitem__, cls.__setitem__

    def build(data: Any, dtype: Any = None, device: Any = None, **kwargs: Any) -> torch.Tensor:
        made = tensor(data.cpu() if isinstance(data, torch.Tensor) else data, dtype=dtype, **kwargs)
        return made.to(GPU) if device is not None and torch.device(device).type == "cuda" else made

    def build_like(like: Any, data: Any, **kwargs: Any) -> torch.Tensor:
        return build(data, **{"dtype": like.dtype, "device": like.device} | kwargs)

    def index(key: Any) -> Any:
        return tuple(map(index, key)) if isinstance(key, tuple) else tensor(key) if isinstance(key, list) else key

    def assign(self: Any, key: Any, value: Any) -> None:
        setitem(self, index(key), value if isinstance(value, torch.Tensor) else tensor(value, dtype=self.dtype))

    module.tensor, module.as_tensor, cls.new_tensor = build, build, build_like
    cls.__getitem__, cls.__setitem__ = lambda self, key: getitem(self, index(key)), assign
    cls.pin_memory, cls.tolist = lambda self, *args: self, lambda self: self.cpu().numpy().tolist()
