"""Build an engine of an explicitly quantized ONNX file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from razordeploy.backends.tensorrt.runtime import compute_capability, last_error, logger, tensorrt_version
from razordeploy.backends.tensorrt.timing_cache import TimingCache, cache_dir
from razordeploy.errors import BackendError
from razordeploy.storage import atomic_write

if TYPE_CHECKING:
    import tensorrt as trt


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Batch sizes of an engine with a dynamic batch."""

    batch: int = 1
    """The one it is tuned for."""
    max_batch: int = 32
    """The largest one."""

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Profile:
        """From an export's options."""
        batch = int(options.get("batch_size", cls.batch))
        return cls(batch=batch, max_batch=max(batch, int(options.get("max_batch", cls.max_batch))))


def build(onnx: Path, target: Path, profile: Profile, cache_folder: Path | None = None) -> None:
    """Write the engine of ``onnx`` to ``target``.

    The network is strongly typed: every type is in the file, int8 wherever it has pairs. TF32 is off, for the float
    layers are to give the numbers that the simulation promised.

    Args:
        onnx: the graph; its weights may lie beside it.
        target: the ``.engine``.
        profile: batch sizes, for a dynamic batch.
        cache_folder: of kernel timings; None: the user's.

    Raises:
        BackendError: TensorRT cannot read the graph or finds no kernels for it; with its own words.
    """
    import tensorrt as trt

    log, errors = logger()
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse_from_file(str(onnx)):
        raise BackendError(f"TensorRT cannot read {onnx}: {_parser_error(parser)}")
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.clear_flag(trt.BuilderFlag.TF32)
    _add_profile(builder, network, config, profile)
    kept = TimingCache(cache_folder or cache_dir(), tensorrt_version(), compute_capability())
    if not config.set_timing_cache(config.create_timing_cache(kept.read()), ignore_mismatch=False):
        config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise BackendError(f"TensorRT builds no engine of {onnx}: {last_error(errors)}")
    atomic_write(target, bytes(plan))
    kept.write(bytes(config.get_timing_cache().serialize()))


def _add_profile(
    builder: trt.Builder, network: trt.INetworkDefinition, config: trt.IBuilderConfig, profile: Profile
) -> None:
    import tensorrt as trt

    inputs = [network.get_input(i) for i in range(network.num_inputs)]
    dynamic = [tensor for tensor in inputs if -1 in tuple(tensor.shape)]
    if not dynamic:
        return
    shapes = builder.create_optimization_profile()
    for tensor in dynamic:
        sizes = tuple(tensor.shape)
        if -1 in sizes[1:]:
            raise BackendError(
                f"the input '{tensor.name}' of shape {sizes} leaves more than the batch open",
                hint="export it with a fixed image size",
            )
        least, best, most = (trt.Dims([n, *sizes[1:]]) for n in (1, profile.batch, profile.max_batch))
        shapes.set_shape(tensor.name, least, best, most)
    config.add_optimization_profile(shapes)


def _parser_error(parser: trt.OnnxParser) -> str:
    if not parser.num_errors:
        return "no reason given"
    error = parser.get_error(0)
    return f"{error.desc()} (node {error.node_name()}, {error.node_operator()})"
