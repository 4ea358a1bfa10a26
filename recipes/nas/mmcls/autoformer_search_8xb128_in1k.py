"""Evolution in the supernet that `autoformer_supernet_32xb256_in1k.py` has trained; limits in millions."""

_base_ = ["./autoformer_supernet_32xb256_in1k.py"]

checkpoint = "work_dirs/autoformer_supernet_32xb256_in1k/supernet.pth"
search = dict(
    type="evolution",
    max_epochs=20,
    num_candidates=50,
    top_k=10,
    num_mutation=25,
    num_crossover=25,
    mutation_prob=0.1,
    recalibrate=0,
    constraints=dict(params=(0.0, 55.0)),
)
