"""Evolution in the supernet that `ofa_mobilenet_supernet_32xb64_in1k.py` has trained; limits in millions."""

_base_ = ["./ofa_mobilenet_supernet_32xb64_in1k.py"]

checkpoint = "work_dirs/ofa_mobilenet_supernet_32xb64_in1k/supernet.pth"
search = dict(
    type="evolution",
    max_epochs=20,
    num_candidates=50,
    top_k=10,
    num_mutation=25,
    num_crossover=25,
    mutation_prob=0.1,
    recalibrate=4096,
    constraints=dict(macs=(0.0, 600.0)),
)
