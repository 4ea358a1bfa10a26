"""Evolution in the supernet that `detnas_retina_shufflenet_supernet_coco_1x.py` has trained; limits in millions.

Candidates are compared by their average precision, batch norms recalibrated on training images.
"""

_base_ = ["./detnas_retina_shufflenet_supernet_coco_1x.py"]

checkpoint = "work_dirs/detnas_retina_shufflenet_supernet_coco_1x/supernet.pth"
search = dict(
    type="evolution",
    max_epochs=20,
    num_candidates=50,
    top_k=10,
    num_mutation=25,
    num_crossover=25,
    mutation_prob=0.1,
    recalibrate=1024,
    constraints=dict(macs="60%"),
)
