"""Every model family of mmcls 1.0.0rc6, smallest config each: from the bare module to int8 engines.

    python tools/bench/zoo.py [--families resnet,swin] [--backend openvino,onnxruntime] [--limit-s 240] [--json F]
                              [--rivals DIR]
    python tools/bench/zoo.py --summary F...

Weights are random (one seed), batch-norm statistics are fitted to the data. One row per family and backend: cosine of
the int8 outputs to the float model's, int8 operations out of those planned, int8 latency over float latency of the
same engine (interleaved, batch 1), and the processor seconds that quantization for all backends took.

``input 8`` is the cosine of the float model with its input alone rounded to 8 bits: deep networks of random weights
amplify any rounding, and an int8 engine, whose first layer reads that input, can hardly be closer to the float model.

With ``--rivals`` the same module goes through NNCF (OpenVINO) and quantize_static (ONNX Runtime): their cosine, and
the latency ratio ours/theirs, measured in the same interleaved run. Their models are kept in DIR and used again.
Where a rival's export fixed the batch, our engine is made with ``dynamic_batch=False`` too before the two are timed.

Families that the JSON file has already are not run again: a run that was cut off goes on. ``--summary`` prints the
geometric means over such files.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch

CONFIGS = {
    "beit": "beit/beit-base-p16_8xb64_in1k.py",
    "beitv2": "beitv2/beitv2-base-p16_8xb64_in1k.py",
    "clip": "clip/vit-base-p32_pt-64xb64_in1k.py",
    "conformer": "conformer/conformer-tiny-p16_8xb128_in1k.py",
    "convmixer": "convmixer/convmixer-768-32_10xb64_in1k.py",
    "convnext": "convnext/convnext-tiny_32xb128_in1k.py",
    "convnext_v2": "convnext_v2/convnext-v2-atto_32xb32_in1k.py",
    "cspnet": "cspnet/cspresnet50_8xb32_in1k.py",
    "davit": "davit/davit-tiny_4xb256_in1k.py",
    "deit": "deit/deit-tiny_pt-4xb256_in1k.py",
    "deit3": "deit3/deit3-small-p16_64xb64_in1k.py",
    "densenet": "densenet/densenet121_4xb256_in1k.py",
    "edgenext": "edgenext/edgenext-xxsmall_8xb256_in1k.py",
    "efficientformer": "efficientformer/efficientformer-l1_8xb128_in1k.py",
    "efficientnet": "efficientnet/efficientnet-b0_8xb32_in1k.py",
    "efficientnet_v2": "efficientnet_v2/efficientnetv2-b0_8xb32_in1k.py",
    "hornet": "hornet/hornet-tiny_8xb128_in1k.py",
    "hrnet": "hrnet/hrnet-w18_4xb32_in1k.py",
    "inception_v3": "inception_v3/inception-v3_8xb32_in1k.py",
    "lenet": "lenet/lenet5_mnist.py",
    "levit": "levit/levit-128s_8xb256_in1k.py",
    "mixmim": "mixmim/mixmim-base_8xb64_in1k.py",
    "mlp_mixer": "mlp_mixer/mlp-mixer-base-p16_64xb64_in1k.py",
    "mobilenet_v2": "mobilenet_v2/mobilenet-v2_8xb32_in1k.py",
    "mobilenet_v3": "mobilenet_v3/mobilenet-v3-small_8xb128_in1k.py",
    "mobileone": "mobileone/mobileone-s0_8xb32_in1k.py",
    "mobilevit": "mobilevit/mobilevit-xxsmall_8xb128_in1k.py",
    "mvit": "mvit/mvitv2-tiny_8xb256_in1k.py",
    "poolformer": "poolformer/poolformer-s12_32xb128_in1k.py",
    "regnet": "regnet/regnetx-400mf_8xb128_in1k.py",
    "repmlp": "repmlp/repmlp-base_8xb64_in1k.py",
    "repvgg": "repvgg/repvgg-A0_8xb32_in1k.py",
    "res2net": "res2net/res2net50-w14-s8_8xb32_in1k.py",
    "resnest": "resnest/resnest50_32xb64_in1k.py",
    "resnet": "resnet/resnet18_8xb32_in1k.py",
    "resnext": "resnext/resnext50-32x4d_8xb32_in1k.py",
    "revvit": "revvit/revvit-small_8xb256_in1k.py",
    "seresnet": "seresnet/seresnet50_8xb32_in1k.py",
    "shufflenet_v1": "shufflenet_v1/shufflenet-v1-1x_16xb64_in1k.py",
    "shufflenet_v2": "shufflenet_v2/shufflenet-v2-1x_16xb64_in1k.py",
    "swin": "swin_transformer/swin-tiny_16xb64_in1k.py",
    "swin_v2": "swin_transformer_v2/swinv2-tiny-w8_16xb64_in1k-256px.py",
    "t2t_vit": "t2t_vit/t2t-vit-t-14_8xb64_in1k.py",
    "tinyvit": "tinyvit/tinyvit-5m_8xb256_in1k.py",
    "tnt": "tnt/tnt-s-p16_16xb64_in1k.py",
    "twins": "twins/twins-pcpvt-small_8xb128_in1k.py",
    "van": "van/van-tiny_8xb128_in1k.py",
    "vgg": "vgg/vgg11bn_8xb32_in1k.py",
    "vig": "vig/vig-tiny_8xb128_in1k.py",
    "vision_transformer": "vision_transformer/vit-base-p32_pt-64xb64_in1k-224.py",
    "wrn": "wrn/wide-resnet50_8xb32_in1k.py",
    "xcit": "xcit/xcit-nano-12-p16_8xb128_in1k.py",
}


NEW_IN_MMPRETRAIN = {
    "eva02": "eva02/eva02-tiny-p14_in1k.py",
    "hivit": "hivit/hivit-tiny-p16_16xb64_in1k.py",
    "replknet": "replknet/replknet-31B_32xb64_in1k.py",
    "riformer": "riformer/riformer-s12_8xb128_in1k.py",
}
"""Classifiers that mmpretrain 1.2.0 adds; the families of mmcls keep their names there."""


def package() -> str:
    """``mmcls`` or ``mmpretrain``: each wants its own mmcv, so an environment holds one of them."""
    if importlib.util.find_spec("mmpretrain") is None:
        return "mmcls"
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        # A build for CUDA beside torch for CPU: it misses operators that classifiers do not use.
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _KEPT.append(library)
    return "mmpretrain"


_KEPT: list[torch.library.Library] = []


def build(family: str) -> tuple[torch.nn.Module, torch.Tensor]:
    """A classifier with random weights and fitted batch norms, and 24 images that fit it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from razordeploy.capture.build import build_model
        from razordeploy.config.recipe import load_recipe

        with tempfile.TemporaryDirectory() as folder:
            recipe = Path(folder) / f"{family}.py"
            config = (CONFIGS | NEW_IN_MMPRETRAIN)[family]
            recipe.write_text(f'_base_ = ["{package()}::{config}"]\n')
            built = build_model(load_recipe(recipe))
    shape = (built.input_shapes or ((3, 224, 224),))[0]
    if family == "lenet":
        shape = (1, 32, 32)
    images = torch.randn(24, *shape, generator=torch.Generator().manual_seed(0))
    norms = [m for m in built.module.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.train()
        norm.momentum = None
        norm.reset_running_stats()
    with torch.no_grad():
        for part in images.split(8) if norms else ():
            built.module(part)
    return built.module.eval(), images


class OnCPU:
    """An engine timed by the processor time that this process takes: what other processes do is not in it."""

    def __init__(self, runner: Any) -> None:
        self.runner = runner

    def __call__(self, *inputs: np.ndarray) -> Any:
        """Run one batch."""
        return self.runner(*inputs)

    def timed_ms(self, *inputs: np.ndarray) -> float:
        """Processor milliseconds of one call: with one thread, its latency on an idle machine."""
        start = time.process_time_ns()
        self.runner(*inputs)
        return (time.process_time_ns() - start) / 1e6


def run(
    family: str, backends: list[str], samples: int, rivals: Path | None, threads: int, clock: str
) -> list[dict[str, Any]]:
    """Quantize one family for all backends, in this process."""
    import razordeploy as rd
    from razordeploy.backends.harness import interleaved_latency

    module, images = build(family)
    batches = [x for _ in range(-(-samples // len(images))) for x in images.split(4)][: samples // 4]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        made = rd.ptq(module, batches, example_inputs=(images[:2],), backend=backends, out_dir=folder)
        seconds = time.process_time() - start
        with torch.no_grad():
            expected = flat(module(images[:8]))
            amplified = cosine(flat(module(rounded(images[:8]))), expected, "the float model")
        for name in backends:
            engine, twin = rd.Engine(made[name], threads=threads), rd.Engine(made[name], "float", threads)
            runners = {"int8": engine.runner, "float": twin.runner}
            if rivals is not None:
                try:
                    runners["rival"] = RIVALS[name](family, switched(module), batches, rivals, threads)
                except Exception as error:  # whatever the rival raises is its result
                    failure = f"{type(error).__name__}: {error}"
            fixed = engine.inputs[0].shape[0]
            dynamic = fixed is None
            if "rival" in runners and dynamic and not takes_any_batch(runners["rival"], images, expected):
                fixed = 2  # its exporter fixed the batch of the example
                static = {"example_inputs": (images[:2],), "deploy": {"dynamic_batch": False}}
                same = rd.ptq(module, batches, backend=name, out_dir=Path(folder) / "static", **static)
                engine, twin = rd.Engine(same, threads=threads), rd.Engine(same, "float", threads)
                runners |= {"int8": engine.runner, "float": twin.runner}
            parts = images[:8].split(fixed or 8)
            cosines = {
                k: cosine(np.concatenate([flat(r(p.numpy())) for p in parts]), expected, k) for k, r in runners.items()
            }
            batch = [images[: fixed or 1].numpy()]
            timed = {k: OnCPU(r) if clock == "cpu" else r for k, r in runners.items()}
            times = interleaved_latency(timed, batch, seconds=1.5 * len(runners))
            coverage = engine.coverage()
            reasons = Counter((f.op, f.reason) for f in coverage.float_ops)
            rows.append(
                {
                    "family": family,
                    "backend": name,
                    "cosine": cosines["int8"],
                    "input8": amplified,
                    "int8": coverage.int8,
                    "planned": coverage.planned,
                    "int8/float": times["int8"].p50_ms / times["float"].p50_ms,
                    "int8_ms": times["int8"].p50_ms,
                    "seconds": seconds,
                    "dynamic": dynamic,
                    "float": [f"{op}: {reason} x{n}" for (op, reason), n in reasons.most_common()],
                }
            )
            if rivals is not None and "rival" not in runners:
                rows[-1]["rival_error"] = failure
            elif rivals is not None:
                rows[-1] |= {
                    "rival_cosine": cosines["rival"],
                    "rival_ms": times["rival"].p50_ms,
                    "ours/rival": times["int8"].p50_ms / times["rival"].p50_ms,
                }
    return rows


def switched(module: torch.nn.Module) -> torch.nn.Module:
    """What a rival is given: it cannot merge RepVGG's branches, but its user can."""
    from razordeploy.capture.deploy_form import switch_all

    twin = copy.deepcopy(module)
    list(switch_all(twin))
    return twin.eval()


def rounded(images: torch.Tensor) -> torch.Tensor:
    """The images on a grid of 256 levels from their smallest to their largest value."""
    low, high = images.aminmax()
    step = (high - low) / 255
    return ((images - low) / step).round() * step + low


def takes_any_batch(runner: Any, images: torch.Tensor, expected: np.ndarray) -> bool:
    """Tell whether a model that was exported for a batch of 2 gives one result for one image."""
    try:
        return flat(runner(images[:1].numpy())).size * 8 == expected.size
    except Exception:  # each engine has errors of its own
        return False


def flat(outputs: Any) -> np.ndarray:
    """The last output (the classifier's) as one row of float64."""
    last = outputs[-1] if isinstance(outputs, tuple) else outputs
    return np.asarray(last).ravel().astype(np.float64)


def cosine(found: np.ndarray, expected: np.ndarray, name: str) -> float:
    """Cosine of two vectors of one length."""
    if found.shape != expected.shape:
        raise ValueError(f"{name} gives {found.shape} values, expected {expected.shape}")
    return float(found @ expected / (np.linalg.norm(found) * np.linalg.norm(expected)))


def nncf_runner(family: str, module: torch.nn.Module, batches: list[torch.Tensor], folder: Path, threads: int) -> Any:
    """NNCF's model of this family under OpenVINO, made once."""
    from rivals import nncf_openvino

    from razordeploy.backends.openvino.engine import OpenVINORunner

    own = folder / family
    own.mkdir(parents=True, exist_ok=True)
    if not (own / "nncf.xml").exists():
        data = [x[:2].numpy() for x in batches for x in x.split(2)]
        nncf_openvino(module, tuple(batches[0].shape[1:]), data, own)
    return OpenVINORunner(own / "nncf.xml", threads)


def ort_runner(family: str, module: torch.nn.Module, batches: list[torch.Tensor], folder: Path, threads: int) -> Any:
    """quantize_static's model of this family under ONNX Runtime, made once."""
    from rivals import ort_static

    from razordeploy.backends.onnxruntime.engine import ONNXRuntimeRunner

    own = folder / family
    own.mkdir(parents=True, exist_ok=True)
    if not (own / "ort.onnx").exists():
        data = [x[:2].numpy() for x in batches for x in x.split(2)]
        ort_static(module, tuple(batches[0].shape[1:]), data, own)
    return ONNXRuntimeRunner(own / "ort.onnx", threads)


RIVALS = {"openvino": nncf_runner, "onnxruntime": ort_runner}


def main() -> None:
    """Run every family in a process of its own and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", default=",".join(CONFIGS))
    parser.add_argument("--backend", default="openvino,onnxruntime")
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu: for a machine that is not idle")
    parser.add_argument("--limit-s", type=int, default=240)
    parser.add_argument("--rivals", type=Path, help="compare with NNCF and quantize_static; keep their models here")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--summary", type=Path, nargs="+", help="print the means over these JSON files, run nothing")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(
            json.dumps(
                run(
                    options.child,
                    options.backend.split(","),
                    options.samples,
                    options.rivals,
                    options.threads,
                    options.clock,
                )
            )
        )
        return
    if options.summary:
        summarize([row for file in options.summary for row in json.loads(file.read_text())])
        return
    rows: list[dict[str, Any]] = []
    if options.json and options.json.exists():
        rows = [row for row in json.loads(options.json.read_text()) if "error" not in row]
    print(f"{'family':20s}{'backend':13s}{'cosine':>8s}{'input 8':>9s}{'int8 ops':>12s}{'int8/float':>12s}", end="")
    print(f"{'quantize s':>12s}  batch")
    done_before = {row["family"] for row in rows}
    for family in (f for f in options.families.split(",") if f not in done_before):
        command = [sys.executable, __file__, "--child", family, "--backend", options.backend]
        command += ["--threads", str(options.threads), "--clock", options.clock]
        command += ["--rivals", str(options.rivals)] if options.rivals else []
        try:
            done = subprocess.run(
                [*command, "--samples", str(options.samples)],
                capture_output=True,
                text=True,
                timeout=options.limit_s,
                check=False,
            )
            failure = done.stderr.strip().splitlines()[-1][:150] if done.returncode else ""
        except subprocess.TimeoutExpired:
            done, failure = None, f"over the limit of {options.limit_s} s"
        if failure or done is None:
            print(f"{family:20s}FAILED  {failure}", flush=True)
            rows.append({"family": family, "error": failure})
        else:
            for row in json.loads(done.stdout.splitlines()[-1]):
                rows.append(row)
                ops = f"{row['int8']}/{row['planned']}"
                numbers = (
                    f"{row['cosine']:8.4f}{row['input8']:9.4f}{ops:>12s}{row['int8/float']:12.2f}{row['seconds']:12.1f}"
                )
                batch = "any" if row["dynamic"] else "fixed"
                rival = ""
                if "rival_error" in row:
                    rival = f"  rival failed: {row['rival_error'][:60]}"
                elif options.rivals:
                    rival = f"  rival {row['rival_cosine']:.4f} ours/rival {row['ours/rival']:.3f}"
                print(f"{family:20s}{row['backend']:13s}{numbers}  {batch}{rival}", flush=True)
        if options.json:
            options.json.write_text(json.dumps(rows, indent=1))


def summarize(rows: list[dict[str, Any]]) -> None:
    """Geometric means, the worst families and how many reach a cosine of 0.99, a backend at a time."""
    for row in rows:
        if "error" in row:
            print(f"{row['family']}: {row['error']}")
    for backend in dict.fromkeys(row["backend"] for row in rows if "backend" in row):
        mine = [row for row in rows if row.get("backend") == backend]
        print(f"{backend}: {len(mine)} families")
        for key in ("int8/float", "ours/rival"):
            ratios = {row["family"]: row[key] for row in mine if key in row}
            if ratios:
                worst = sorted(ratios.items(), key=lambda item: -item[1])[:6]
                mean = float(np.exp(np.mean(np.log(list(ratios.values())))))
                over = sum(ratio > 1.1 for ratio in ratios.values())
                listed = ", ".join(f"{family} {ratio:.2f}" for family, ratio in worst)
                print(f"  {key}: geometric mean {mean:.3f} of {len(ratios)}, over 1.10: {over}; {listed}")
        for key in ("cosine", "rival_cosine", "input8"):
            cosines = {row["family"]: row[key] for row in mine if key in row}
            if cosines:
                low = sorted((c, family) for family, c in cosines.items() if c < 0.99)
                listed = ", ".join(f"{family} {c:.3f}" for c, family in low)
                print(f"  {key}: {len(cosines) - len(low)} of {len(cosines)} at 0.99 or more; {listed}")
        short = [f"{r['family']} {r['int8']}/{r['planned']}" for r in mine if r["int8"] != r["planned"]]
        print(f"  planned, but float in the engine: {', '.join(short) or 'nothing'}")


if __name__ == "__main__":
    main()
