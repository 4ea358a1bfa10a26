"""What distillation gains: digits with wrong labels, every method against the student alone, five seeds.

python tools/bench/distill.py [--seeds 5] [--first-seed 0] [--epochs 10] [--noise 0.4] [--methods KD,FitNets]
                              [--data-free | --overhead]

The teachers learn from the right labels. All students take the same steps over the same images, of whose labels
``--noise`` are wrong. Printed are the means of top-1 on the 355 held-out images and half the width of their 95 %
confidence interval (Student's t), then the gain over the student alone of the same seed, with its own interval.
``--data-free`` compares the methods that see no image: their students take 1,100 steps on generated batches, one
more on noise of the images' mean and deviation, and one on the images; all learn from the teacher alone.
``--overhead`` times a training step with recorders and losses against one that calls student and teacher only.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import torch
from distill_methods import STUDENTS, TRAINING_IMAGES, data_free, methods

from razordeploy.capture.factory import resolve_factory
from razordeploy.compress.distill.train import build_algorithm, train_distillation
from razordeploy.config.recipe import load_recipe
from razordeploy.data.digits import Digits
from razordeploy.models.digits import resnet8
from razordeploy.train.runner import train_float

STUDENT, TEACHER = 4, 16
# Student's t, 97.5 %, by degrees of freedom.
T = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 7: 2.36, 8: 2.31, 9: 2.26}


def digits(split: str, noise: float = 0.0, seed: int = 0) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """scikit-learn's digits, of whose training labels ``noise`` are replaced by one of the nine others."""
    source = Digits(split)
    images = torch.stack([source[i][0] for i in range(len(source))])
    labels = torch.from_numpy(source.labels)
    if split == "train" and noise:
        generator = torch.Generator().manual_seed(seed)
        wrong = torch.rand(len(labels), generator=generator) < noise
        shifted = (labels + torch.randint(1, 10, labels.shape, generator=generator)) % 10
        labels = torch.where(wrong, shifted, labels)
    return [(images, labels)]


def noise(count: int = TRAINING_IMAGES) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Pixels of a normal distribution, and labels that say nothing."""
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(count, 1, 8, 8, generator=generator), torch.zeros(count, dtype=torch.int64))]


def top1(path: Path, width: int, factory: str = "razordeploy.models.digits:resnet8") -> float:
    """Percent of the held-out images."""
    model = resolve_factory(factory, Path(__file__).parent)(width=width)
    model.load_state_dict(torch.load(path, weights_only=True))
    ((images, labels),) = digits("test")
    with torch.no_grad():
        return 100 * float((model.eval()(images).argmax(1) == labels).double().mean())


def recipe_file(folder: Path, model: dict[str, Any], seed: int, options: argparse.Namespace) -> Path:
    """The recipe of one run."""
    sections = {
        "model": model,
        "data": {"type": "distill:digits", "noise": options.noise, "seed": seed},
        "train": {"epochs": options.epochs, "batch_size": 64, "lr": 4e-3, "optimizer": "adamw", "threads": 1},
        "seed": seed,
    }
    if any(c["type"] == "Paraphraser" for c in model.get("distiller", {}).get("connectors", {}).values()):
        sections["custom_hooks"] = [{"type": "ConnectorPretrainHook", "epochs": 3}]
    file = folder / "recipe.py"
    file.write_text("".join(f"{key} = {value!r}\n" for key, value in sections.items()))
    return file


def quietly(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """``call`` without its log."""
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        return call(*args, **kwargs)


def trained_teacher(folder: Path, seed: int, options: argparse.Namespace) -> Path:
    """A teacher who saw the right labels."""
    torch.manual_seed(seed)
    keywords = {"epochs": options.epochs, "batch_size": 64, "lr": 4e-3, "threads": 1, "seed": seed}
    path: Path = quietly(train_float, resnet8(width=TEACHER), Digits("train"), work_dir=folder, **keywords)
    return path


def student_alone(folder: Path, seed: int, options: argparse.Namespace) -> float:
    """The same steps without a teacher."""
    from razordeploy.data.python_source import PythonSource

    torch.manual_seed(seed)
    source = PythonSource("distill:digits", {"noise": options.noise, "seed": seed}, "train")
    keywords = {"epochs": options.epochs, "batch_size": 64, "lr": 4e-3, "threads": 1, "seed": seed}
    return top1(quietly(train_float, resnet8(width=STUDENT), source, work_dir=folder, **keywords), STUDENT)


def free_table(options: argparse.Namespace) -> None:
    """One row per method that sees no image, and what there is to compare with."""
    free = ("DAFL", "DFAD", "ZSKT")
    chosen = options.methods.split(",") if options.methods else ["on the images", "on noise", *free]
    scores: dict[str, list[float]] = {name: [] for name in ("teacher", *chosen)}
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            teacher = trained_teacher(folder / "teacher", seed, options)
            scores["teacher"].append(top1(teacher, TEACHER))
            kd = methods(STUDENT, TEACHER, [str(teacher)] * 2)["KD"] | {"calculate_student_loss": False}
            known = data_free(STUDENT, TEACHER, str(teacher))
            runs = {"on the images": (kd, "digits"), "on noise": (kd, "noise")} | {
                n: (known[n], "digits") for n in free
            }
            for name, (model, data) in ((name, runs[name]) for name in chosen):
                file = recipe_file(folder, model, seed, options)
                # One batch is 64 of 1,442 images, 22 an epoch; data-free methods take several student steps for each.
                epochs = 50 // model.get("student_iter", 1)
                extra = [f"train['epochs'] = {epochs}"]
                if data == "noise":
                    extra.append("data = {'type': 'distill:noise'}")
                if name in free:
                    extra.append(f"optim_wrapper = {_two_optimizers()!r}")
                file.write_text(file.read_text() + "\n".join(extra) + "\n")
                path = quietly(train_distillation, load_recipe(file), work_dir=folder / name)
                scores[name].append(top1(path, STUDENT))
        print(f"seed {seed}: " + ", ".join(f"{name} {values[-1]:.2f}" for name, values in scores.items()), flush=True)
    print(f"\n{'':<14}{'top-1':>7}{'+-':>7}")
    for name, values in scores.items():
        mean, half = interval(values)
        print(f"{name:<14}{mean:>7.2f}{half:>7.2f}")


def _two_optimizers() -> dict[str, Any]:
    return {
        "constructor": "SeparateOptimWrapperConstructor",
        "architecture": {"optimizer": {"type": "Adam", "lr": 2e-3}, "clip_grad": {"max_norm": 5}},
        "generator": {"optimizer": {"type": "Adam", "lr": 1e-3}, "clip_grad": {"max_norm": 5}},
    }


def interval(values: list[float]) -> tuple[float, float]:
    """Mean, and half of its 95 % confidence interval."""
    if len(values) < 2:
        return values[0], float("nan")
    half = T.get(len(values) - 1, 1.96) * statistics.stdev(values) / len(values) ** 0.5
    return statistics.mean(values), half


def table(options: argparse.Namespace) -> None:
    """One row per method, over all seeds."""
    chosen = options.methods.split(",") if options.methods else list(methods(STUDENT, TEACHER, ["", ""]))
    scores: dict[str, list[float]] = {name: [] for name in ("teacher", "student alone", *chosen)}
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            teachers = [trained_teacher(folder / f"teacher{i}", 100 * i + seed, options) for i in (0, 1)]
            known = methods(STUDENT, TEACHER, [str(path) for path in teachers])
            scores["teacher"].append(top1(teachers[0], TEACHER))
            scores["student alone"].append(student_alone(folder / "alone", seed, options))
            for name in chosen:
                recipe = load_recipe(recipe_file(folder, known[name], seed, options))
                path = quietly(train_distillation, recipe, work_dir=folder / name)
                scores[name].append(top1(path, STUDENT, STUDENTS.get(name, "razordeploy.models.digits:resnet8")))
        print(f"seed {seed}: " + ", ".join(f"{name} {values[-1]:.2f}" for name, values in scores.items()), flush=True)
    print(f"\n{'':<14}{'top-1':>7}{'+-':>7}{'gain':>8}{'+-':>7}")
    for name, values in scores.items():
        mean, half = interval(values)
        gain, spread = interval([a - b for a, b in zip(values, scores["student alone"], strict=True)])
        print(f"{name:<14}{mean:>7.2f}{half:>7.2f}{gain:>+8.2f}{spread:>7.2f}")


def overhead(options: argparse.Namespace) -> None:
    """Ratio of a KD training step to one that computes the same without recorders and distiller."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        teacher = Path(place) / "teacher.pth"
        torch.save(resnet8(width=TEACHER).state_dict(), teacher)
        model = methods(STUDENT, TEACHER, [str(teacher)])["KD"]
        algorithm = build_algorithm(load_recipe(recipe_file(Path(place), model, 0, options))).train()
    images, labels = torch.randn(64, 1, 16, 16), torch.arange(64) % 10
    parameters = list(algorithm.student.parameters())

    def backward(loss: torch.Tensor) -> None:
        for parameter in parameters:
            parameter.grad = None
        loss.backward()

    def ours() -> None:
        backward(sum(algorithm.loss(images, labels).values()))

    def bare() -> None:
        with torch.no_grad():
            seen = type(algorithm.teacher).plain_class.forward(algorithm.teacher, images)
        own = type(algorithm.student).plain_class.forward(algorithm.student, images)
        soft = torch.nn.functional.kl_div((own / 4).log_softmax(1), (seen / 4).softmax(1), reduction="batchmean")
        backward(torch.nn.functional.cross_entropy(own, labels) + 16 * 16 * soft)

    ratios = []
    for _ in range(300):
        took = {}
        for step in (ours, bare, bare, ours):
            start = time.perf_counter()
            step()
            took[step] = took.get(step, 0.0) + time.perf_counter() - start
        ratios.append(took[ours] / took[bare])
    print(f"training step, KD recipe / written out by hand: {statistics.median(ratios):.3f} (median of {len(ratios)})")


def main() -> None:
    """Print the table, or the overhead."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--noise", type=float, default=0.4)
    parser.add_argument("--methods", default="")
    parser.add_argument("--data-free", action="store_true")
    parser.add_argument("--overhead", action="store_true")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    if options.overhead:
        overhead(options)
    elif options.data_free:
        free_table(options)
    else:
        table(options)


if __name__ == "__main__":
    main()
