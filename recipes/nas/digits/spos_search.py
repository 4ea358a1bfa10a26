"""Evolution in the single-path supernet of the digits, under a limit on multiply-accumulates.

`razordeploy train nas/digits/spos_supernet.py` makes the supernet. Batch norms are recalibrated for each candidate.
"""

_base_ = ["spos_supernet.py"]

search = dict(
    type="evolution",
    constraints=dict(macs="60%"),
    max_epochs=6,
    num_candidates=20,
    top_k=8,
    num_mutation=10,
    num_crossover=10,
    # Candidates are compared on training images; the test images are for what is chosen.
    split="train",
    recalibrate=300,
)
executor = dict(type="local", max_parallel=2, cpus=1)
