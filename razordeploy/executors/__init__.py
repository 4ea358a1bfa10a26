"""Where tasks run: this process, processes of this machine, a Ray cluster, Slurm; one ``submit -> Future`` for all."""
