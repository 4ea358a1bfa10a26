"""Distillation on generated images."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sized
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from razordeploy.compress.algorithm.base import (
    BaseAlgorithm,
    add_prefix,
    check_losses,
    disable_inplace,
    unwrap,
)
from razordeploy.compress.algorithm.build import build
from razordeploy.compress.distill.algorithms.multi_teacher import build_teachers
from razordeploy.compress.distill.distillers.build import build_distiller
from razordeploy.compress.distill.distillers.configurable import ConfigurableDistiller
from razordeploy.compress.distill.generators.generator import GENERATORS, BaseGenerator
from razordeploy.errors import DataError

Self = TypeVar("Self", bound="DataFreeDistillation")


class DataFreeDistillation(BaseAlgorithm):
    """A generator looks for images on which student and teachers differ; the student learns to agree on them.

    Data-Free Adversarial Distillation (Fang et al. 2019, arXiv 1912.11006): 5 student steps of an L1 loss, then one
    generator step of its negative. Zero-shot Knowledge Transfer (arXiv 1905.09768): one generator step, then 10 of the
    student. Of a batch of data only its size is used. Needs two optimizers, ``architecture`` and ``generator``.

    Args:
        distiller: losses of the student.
        generator_distiller: losses of the generator.
        teachers: name -> ``dict(build_cfg=..., ckpt_path=...)``; recorders start with the name.
        generator: ``dict(type='DAFLGenerator', ...)``.
        architecture: the student.
        student_iter: student steps for each generator step.
        student_train_first: train the student before the generator in a step.
        random_teacher: learn from random weights where a teacher has no ``ckpt_path``.
        data_preprocessor: used in evaluation; None: the student's own.
        init_cfg: mmengine's initialisation config.
    """

    def __init__(
        self,
        distiller: Any,
        generator_distiller: Any,
        teachers: Mapping[str, Any],
        generator: Any,
        architecture: Any,
        student_iter: int = 1,
        student_train_first: bool = False,
        random_teacher: bool = False,
        data_preprocessor: Any = None,
        init_cfg: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(architecture=architecture, data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.student_iter = student_iter
        self.student_train_first = student_train_first
        self.teachers = build_teachers(teachers, random_teacher)
        disable_inplace(self.student)
        self.generator: nn.Module = (
            generator if isinstance(generator, BaseGenerator) else build(generator, GENERATORS, "generator")
        )
        self.distiller = build_distiller(distiller)
        self.generator_distiller = build_distiller(generator_distiller)
        for each in (self.distiller, self.generator_distiller):
            each.prepare_from_student(self.student)
            each.prepare_from_teacher(self.teachers)

    def train_step(self, data: Any, optim_wrapper: Any) -> dict[str, Tensor]:
        """Student and generator steps on generated batches of the size of ``data``."""
        log: dict[str, Tensor] = {}
        size = batch_size(data)
        order = [self.train_generator, self.train_student]
        for step in reversed(order) if self.student_train_first else order:
            log.update(step(size, optim_wrapper))
        return log

    def train_student(self, size: int, optim_wrapper: Any) -> dict[str, Tensor]:
        """``student_iter`` steps of the student, each on a new batch."""
        log: dict[str, Tensor] = {}
        optimizer = optim_wrapper["architecture"]
        for step in range(self.student_iter):
            with torch.no_grad():
                images = self.generator(batch_size=size)
            with optimizer.optim_context(self.student):
                loss, found = self._student_loss(images)
            optimizer.update_params(loss)
            log.update(add_prefix(found, f"distill_iter{step}"))
            log["loss"] = loss.detach()
        return log

    def train_generator(self, size: int, optim_wrapper: Any) -> dict[str, Tensor]:
        """One step of the generator; neither student nor teachers get a gradient."""
        optimizer = optim_wrapper["generator"]
        with optimizer.optim_context(self.generator):
            loss, found = self._generator_loss(self.generator(batch_size=size))
        optimizer.update_params(loss)
        return {**add_prefix(found, "generator"), "generator_loss": loss.detach()}

    def check_batch(self, data: Any) -> None:
        """Compute the losses of student and generator as a training step would."""
        images = self.generator(batch_size=batch_size(data))
        check_losses(self._generator_loss(images))
        check_losses(self._student_loss(images.detach()))

    def _student_loss(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return self._parsed(self._compare(self.distiller, self.student, images, teachers_grad=False))

    def _generator_loss(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        student = unwrap(self.student)
        with _frozen(student):
            return self._parsed(self._compare(self.generator_distiller, student, images, teachers_grad=True))

    def _compare(
        self, distiller: ConfigurableDistiller, student: nn.Module, images: Tensor, *, teachers_grad: bool
    ) -> dict[str, Tensor]:
        if distiller.needs_student:
            with distiller.student_recorders:
                student(images, None, mode="tensor")
        with distiller.teacher_recorders, torch.set_grad_enabled(teachers_grad):
            for teacher in self.teachers.values():
                teacher(images, None, mode="tensor")
        losses = distiller.compute_distill_losses()
        distiller.reset_data_buffer()
        return losses

    def _parsed(self, losses: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        loss, log = self.parse_losses(losses)
        log.pop("loss")
        return loss, log

    def train(self: Self, mode: bool = True) -> Self:
        """The teachers stay in eval mode."""
        super().train(mode)
        if hasattr(self, "teachers"):
            self.teachers.eval()
        return self


class DAFLDataFreeDistillation(DataFreeDistillation):
    """Generator and student take one step each on the same batch.

    Data-Free Learning of Student Networks (Chen et al. 2019, arXiv 1904.01186).
    """

    def train_step(self, data: Any, optim_wrapper: Any) -> dict[str, Tensor]:
        """Both losses are computed before either model changes."""
        with optim_wrapper["generator"].optim_context(self.generator):
            images = self.generator(batch_size=batch_size(data))
        with optim_wrapper["generator"].optim_context(self.generator):
            of_generator, log = self._generator_loss(images)
        with optim_wrapper["architecture"].optim_context(self.student):
            of_student, found = self._student_loss(images.detach())
        optim_wrapper["generator"].update_params(of_generator)
        optim_wrapper["architecture"].update_params(of_student)
        named = {**add_prefix(log, "generator"), **add_prefix(found, "distill")}
        return {**named, "generator_loss": of_generator.detach(), "loss": of_student.detach()}


def batch_size(data: Any) -> int:
    """Samples in a batch of a dataloader: a dict with ``inputs``, a tuple with them in front, or a list of samples.

    Raises:
        DataError: it is none of those.
    """
    if isinstance(data, Mapping):
        data = data.get("inputs")
    elif isinstance(data, tuple | list) and data and isinstance(data[0], Tensor):
        data = data[0]
    if not isinstance(data, Sized) or len(data) == 0:
        raise DataError(f"data-free distillation: expected a batch to take the size of, got {type(data).__name__}")
    return len(data)


@contextlib.contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """Let gradients flow through ``module`` and none into it."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
