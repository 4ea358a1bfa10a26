"""Our AOTInductor int8 packages against torchao's own flow and compiled float, interleaved in one process.

    OMP_NUM_THREADS=1 python tools/bench/torch_native.py [--models resnet20,deit] [--batches 1,8] [--seconds 20]

Same module, same images. torchao's flow is its tutorial's: X86InductorQuantizer, prepare_pt2e, convert_pt2e, then
``torch.compile`` with freezing (one program a batch size), and an AOTInductor package with a dynamic batch like ours.
Every model takes and gives arrays. Latencies are tenth percentiles, which a busy machine disturbs least; a ratio below
one means that ours is faster, and is the median of the rounds.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import models
import numpy as np
import torch
import zoo
from rivals import quiet

import razordeploy as rd
from razordeploy.backends.harness import interleaved_latency

NAMES = ("resnet20", "resnet18", "resnet50", "mobilenet_v2", "deit")
RIVALS = ("torchao", "torchao_aoti", "float_compiled", "float")
Run = Callable[[np.ndarray], Any]


def build(name: str, samples: int) -> tuple[torch.nn.Module, list[torch.Tensor]]:
    """A float module in eval mode and ``samples`` calibration images, one a batch."""
    if name in models.NAMES:
        return models.build(name)[0], models.images(name, samples)
    module, images = zoo.build(name)
    return module, list(images[:samples].split(1))


def torchao_converted(module: torch.nn.Module, data: Sequence[torch.Tensor]) -> torch.fx.GraphModule:
    """The graph that torchao quantizes, with its defaults.

    From a strict export: its patterns look for source functions, which the other kind of export does not record.
    mmcls's stochastic depth, idle in eval mode, is taken out: it branches on a tensor, which strict export refuses.
    """
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    module = copy.deepcopy(module).to(memory_format=torch.channels_last)
    for part in module.modules():
        if type(part).__name__ == "DropPath":
            part.__class__ = torch.nn.Identity
    exported = _export(module, _example(data), strict=True).module(check_guards=False)
    quantizer = x86.X86InductorQuantizer().set_global(x86.get_default_x86_inductor_quantization_config())
    prepared = prepare_pt2e(exported, quantizer)
    for x in data:
        prepared(x)
    return convert_pt2e(prepared)


def compiled(module: torch.nn.Module) -> Run:
    """``torch.compile`` with freezing, specialised to the sizes that it meets."""
    program = torch.compile(module, dynamic=False)

    def run(x: np.ndarray) -> np.ndarray:
        tensor = torch.from_numpy(x).contiguous(memory_format=torch.channels_last)
        with torch.no_grad(), torch._inductor.config.patch(freezing=True):
            return program(tensor).numpy()

    return run


def packaged(module: torch.nn.Module, data: Sequence[torch.Tensor], path: Path) -> Run:
    """An AOTInductor package with freezing."""
    with torch.no_grad(), torch._inductor.config.patch(freezing=True):
        torch._inductor.aoti_compile_and_package(_export(module, _example(data)), package_path=str(path))
        model = torch._inductor.aoti_load_package(str(path))
    return lambda x: model(torch.from_numpy(x).contiguous(memory_format=torch.channels_last)).numpy()


def _example(data: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.cat(list(data[:2])).contiguous(memory_format=torch.channels_last)


def _export(module: torch.nn.Module, example: torch.Tensor, strict: bool = False) -> torch.export.ExportedProgram:
    """With a dynamic batch where the model's code allows one."""
    shapes = ({0: torch.export.Dim.AUTO},)
    return torch.export.export(module, (example,), dynamic_shapes=shapes, strict=strict)


def measure(name: str, *, batches: Sequence[int], seconds: float, rounds: int, samples: int) -> list[dict[str, Any]]:
    """One row a batch size: our latency, the others', and the ratios."""
    module, data = build(name, samples)
    example = torch.cat(data[:2])
    rows = []
    with tempfile.TemporaryDirectory() as folder_name, quiet():
        folder = Path(folder_name)
        threads = torch.get_num_threads()
        made = rd.ptq(module, data, example_inputs=(example,), backend="torch_native", out_dir=folder / "ours")
        ours, twin = rd.load_engine(made, threads=threads), rd.Engine(made, "float", threads)
        converted = torchao_converted(module, data)
        runners: dict[str, Run] = {
            "ours": ours.runner,
            "torchao": compiled(converted),
            "torchao_aoti": packaged(converted, data, folder / "torchao.pt2"),
            "float_compiled": compiled(copy.deepcopy(module).to(memory_format=torch.channels_last)),
            "float": twin.runner,
        }
        coverage = ours.coverage()
        with torch.no_grad():
            expected = module(example).numpy()
        cosine = {side: _cosine(runners[side](example.numpy()), expected) for side in ("ours", "torchao")}
        for batch in batches:
            x = np.random.default_rng(0).standard_normal((batch, *example.shape[1:])).astype(np.float32)
            found = [interleaved_latency(runners, [x], seconds=seconds / rounds) for _ in range(rounds)]
            p10 = [{side: float(np.percentile(t.samples_ms, 10)) for side, t in one.items()} for one in found]
            ratios = {side: float(np.median([p["ours"] / p[side] for p in p10])) for side in RIVALS}
            times = {side: float(np.median([p[side] for p in p10])) for side in runners}
            rows.append({"model": name, "batch": batch, "ms": times, "ours/": ratios, "cosine": cosine,
                         "int8": coverage.int8, "planned": coverage.planned})  # fmt: skip
    return rows


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    x, y = a.ravel().astype(np.float64), b.ravel().astype(np.float64)
    return float(x @ y / (np.linalg.norm(x) * np.linalg.norm(y)))


def main() -> None:
    """Print the table and, with --json, write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(NAMES))
    parser.add_argument("--batches", default="1,8")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    logging.getLogger("torch").setLevel(logging.ERROR)
    sides = ("ours", *RIVALS)
    heads = [f"{side} ms" for side in sides] + [f"/{side}" for side in RIVALS]
    print(f"{'model':14s}{'batch':>6s}{''.join(f'{head:>18s}' for head in heads)}  cosine (torchao's)  int8")
    rows = []
    sizes = {"seconds": options.seconds, "rounds": options.rounds, "samples": options.samples}
    for name in options.models.split(","):
        for row in measure(name, batches=[int(b) for b in options.batches.split(",")], **sizes):
            rows.append(row)
            numbers = [row["ms"][side] for side in sides] + [row["ours/"][side] for side in RIVALS]
            columns = "".join(f"{number:18.3f}" for number in numbers)
            cosine = f"{row['cosine']['ours']:.4f} ({row['cosine']['torchao']:.4f})"
            print(f"{name:14s}{row['batch']:6d}{columns}  {cosine}  {row['int8']}/{row['planned']}", flush=True)
        torch._dynamo.reset()
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
