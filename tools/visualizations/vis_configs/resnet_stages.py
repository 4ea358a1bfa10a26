"""The last outputs of the first three stages of a residual network (a block calls its one ReLU several times)."""

recorders = {f"stage{i}": dict(type="ModuleOutputs", source=f"layer{i}") for i in (1, 2, 3)}
mappings = {name: dict(recorder=name) for name in recorders}
