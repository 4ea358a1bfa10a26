"""Run the command line as `python -m razordeploy`."""

from razordeploy.cli.main import main

main()
