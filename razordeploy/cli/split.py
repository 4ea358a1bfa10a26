"""``razordeploy split-checkpoint``: the weights of several widths, apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from razordeploy.cli.export import export
from razordeploy.errors import UsageError


def run(
    recipe_path: str,
    checkpoint: Path,
    channel_cfgs: Sequence[Path],
    *,
    output_dir: Path,
    overrides: Mapping[str, str],
) -> None:
    """Write the subnet of each file to ``checkpoint_1``, ``checkpoint_2`` ... in ``output_dir``.

    Raises:
        UsageError: the same file twice.
        RazorDeployError: as of ``export``.
    """
    if len({path.resolve() for path in channel_cfgs}) < len(channel_cfgs):
        raise UsageError(f"--channel-cfgs names a file twice: {', '.join(map(str, channel_cfgs))}")
    for number, file in enumerate(channel_cfgs, 1):
        out = output_dir / f"checkpoint_{number}"
        made = export(recipe_path, checkpoint=checkpoint, subnet=file, out=out, overrides=overrides)
        size = made.file("checkpoint").stat().st_size
        print(f"wrote {made.path}: {file.name}, {size / 1e6:.2f} MB of {checkpoint.stat().st_size / 1e6:.2f} MB")
