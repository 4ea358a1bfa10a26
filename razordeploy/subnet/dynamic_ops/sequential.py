"""Chains of elastic depth."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from torch import nn

from razordeploy.errors import ModelError
from razordeploy.subnet.dynamic_ops.base import DynamicMixin
from razordeploy.subnet.mutables.base import BaseMutable


class DynamicSequential(DynamicMixin, nn.Sequential):
    """A sequence of which the first ``depth`` modules run; takes the arguments of ``nn.Sequential``.

    Mutables that the chain holds itself are not run.
    """

    accepted_mutable_attrs: ClassVar[frozenset[str]] = frozenset({"depth"})

    @property
    def static_op_factory(self) -> type[nn.Module]:
        """``nn.Sequential``."""
        return nn.Sequential

    @classmethod
    def check_convertible(cls, module: nn.Module) -> None:
        """Raise ``ModelError`` where ``module`` is no plain sequence."""
        if not isinstance(module, nn.Sequential) or type(module).forward is not nn.Sequential.forward:
            raise ModelError(f"{cls.__name__} stands in for Sequential, got {type(module).__name__}")

    def __len__(self) -> int:
        return self.pure_module_nums

    def __iter__(self) -> Iterator[nn.Module]:
        return self.pure_modules()

    @property
    def mutable_depth(self) -> BaseMutable | None:
        """What the depth follows."""
        return self.get_mutable_attr("depth")

    def pure_modules(self) -> Iterator[nn.Module]:
        """The modules of the chain, in order."""
        return (module for _, module in self._links())

    @property
    def pure_module_nums(self) -> int:
        """Number of modules of the chain."""
        return sum(1 for _ in self._links())

    def forward(self, x: Any) -> Any:
        """Run the first ``depth`` modules one after another; all where no mutable is registered."""
        for index, module in enumerate(self.pure_modules()):
            if index >= self._choice("depth", self.pure_module_nums):
                break
            x = module(x)
        return x

    def to_static_op(self) -> nn.Module:
        """A plain sequence of the modules that run, their own dynamic operations made plain as well."""
        self.check_if_mutables_fixed()
        depth = self._choice("depth", self.pure_module_nums)
        static = nn.Sequential()
        for name, module in list(self._links())[:depth]:
            static.add_module(name, module.to_static_op() if isinstance(module, DynamicMixin) else module)
        # Not train(): the links keep their own modes, a frozen batch norm among them.
        static.training = self.training
        return static

    def _links(self) -> Iterator[tuple[str, nn.Module]]:
        for name, module in self._modules.items():
            if module is not None and name != "mutable_attrs" and not isinstance(module, BaseMutable):
                yield name, module

    def _check_mutable(self, key: str, mutable: BaseMutable) -> None:
        depths = sorted(mutable.choices)
        if depths[0] < 0 or depths[-1] != self.pure_module_nums:
            raise ModelError(
                f"DynamicSequential: expected depths up to {self.pure_module_nums}, the length of the chain, "
                f"got {depths} from mutable '{mutable.name}'"
            )
