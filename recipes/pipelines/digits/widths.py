"""The float CNN on digits, its int8 engine, and int8 engines of three quarters, half and a quarter of its width.

Each narrow model is cut out of the whole one and trained on; the report shows accuracy against latency.
"""

_base_ = ["../../ptq/digits_resnet8.py"]

_narrow = [("w75", 0.75), ("w50", 0.5), ("w25", 0.25)]
pipeline = [
    dict(stage="train"),
    dict(stage="ptq", name="int8"),
    *[
        stage
        for name, share in _narrow
        for stage in (
            dict(stage="export", name=f"{name}_slice", set={"prune.choice": share}, **{"from": "train"}),
            dict(stage="train", name=name, set={"train.epochs": 6, "train.lr": 2e-3}),
            dict(stage="ptq", name=f"{name}_int8"),
        )
    ],
]
