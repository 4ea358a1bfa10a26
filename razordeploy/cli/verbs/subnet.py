"""``export``, ``channel-units`` and ``split-checkpoint``: parts of models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from razordeploy.cli.app import Recipe, Sets, Trust, app, pairs


@app.command()
def export(
    recipe: Recipe,
    out: Annotated[Path, typer.Option(help="Folder for the artifact.")],
    subnet: Annotated[Path | None, typer.Option(help="Subnet file; default: the recipe's.")] = None,
    slice_weight: Annotated[bool, typer.Option(help="Slice the weights to a static model.")] = True,
    export_channel: Annotated[bool, typer.Option(help="With the layers of each unit: loading needs no trace.")] = False,
    checkpoint: Annotated[Path | None, typer.Option(help="Weights, instead of the recipe's.")] = None,
    sets: Sets = None,
    recalibrate: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Samples for batch norms; default: only of supernets.")
    ] = None,
    trust_checkpoint: Trust = False,
) -> None:
    """Fix a subnet and write it: subnet file, static checkpoint, ONNX."""
    from razordeploy.cli.export import run

    run(
        recipe,
        checkpoint=checkpoint,
        subnet=subnet,
        slice_weight=slice_weight,
        export_channel=export_channel,
        out=out,
        overrides=pairs(sets),
        trust=trust_checkpoint,
        recalibrate_samples=recalibrate,
    )


@app.command("channel-units")
def channel_units(
    recipe: Recipe,
    with_channel: Annotated[bool, typer.Option("--with-channel", "-c", help="With the layers of each unit.")] = False,
    with_init_args: Annotated[bool, typer.Option("--with-init-args", "-i", help="With each unit's arguments.")] = False,
    choice: Annotated[bool, typer.Option("--choice", help="Only the current choice of each unit.")] = False,
    output_path: Annotated[Path | None, typer.Option("--output-path", "-o", help="A file; default: print.")] = None,
    sets: Sets = None,
) -> None:
    """Config template of the units that can be pruned."""
    from razordeploy.cli.channel_units import run

    run(
        recipe,
        with_channel=with_channel,
        with_init_args=with_init_args,
        choice=choice,
        output_path=output_path,
        overrides=pairs(sets),
    )


@app.command("split-checkpoint")
def split_checkpoint(
    recipe: Recipe,
    checkpoint: Annotated[Path, typer.Argument(help="The checkpoint of all widths.")],
    channel_cfgs: Annotated[
        list[Path], typer.Option("--channel-cfgs", metavar="FILE...", help="Subnet files, in the order of training.")
    ],
    output_dir: Annotated[Path, typer.Option(help="Gets a folder per subnet.")] = Path(),
    sets: Sets = None,
) -> None:
    """One slimmable checkpoint -> one per subnet."""
    from razordeploy.cli.split import run

    run(recipe, checkpoint, channel_cfgs, output_dir=output_dir, overrides=pairs(sets))
