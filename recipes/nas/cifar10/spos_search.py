"""Evolution on a part of CIFAR-10, under a limit on the measured latency of OpenVINO's int8 engine.

`razordeploy train nas/cifar10/spos_supernet.py` makes the supernet; 1,000 training images judge the candidates.
"""

_base_ = ["spos_supernet.py"]

search = dict(
    type="evolution",
    constraints={"latency@openvino": "60%"},
    latency=dict(samples=20, seconds=0.6, threads=1),
    max_epochs=6,
    num_candidates=20,
    top_k=8,
    num_mutation=10,
    num_crossover=10,
    split="train",
    num_samples=1000,
    recalibrate=512,
)
executor = dict(type="local", max_parallel=2, cpus=1)
