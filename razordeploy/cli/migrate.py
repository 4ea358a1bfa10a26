"""``razordeploy migrate``."""

from __future__ import annotations

from pathlib import Path

from razordeploy.errors import UsageError
from razordeploy.integrations.migrate import migrate
from razordeploy.storage import atomic_write


def run(config: Path, output: Path | None) -> None:
    """Print the recipe, or write it to ``output``.

    Raises:
        UsageError: there is no such config, or ``output`` would take its place.
        RecipeError: it cannot be read.
    """
    if not config.is_file():
        raise UsageError(f"expected a config at {config}, found {'a folder' if config.is_dir() else 'nothing'}")
    if output is not None and output.resolve() == config.resolve():
        raise UsageError(f"-o {output} is the config itself", hint="name another file")
    text = migrate(config)
    if output is None:
        print(text, end="")
        return
    atomic_write(output, text)
    print(f"wrote {output}\nnext: razordeploy {'qat' if 'qat = ' in text else 'ptq'} {output}")
