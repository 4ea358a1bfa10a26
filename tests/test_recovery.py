"""Recovery: steps until the engine's gap holds, never worse than plain, and an interrupt that costs one step."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

import razordeploy as rd
from razordeploy import recovery, recovery_float, recovery_goal
from razordeploy.api import build_report
from razordeploy.config.qconfig import QuantizeConfig
from razordeploy.config.sections import DeployConfig
from razordeploy.data.batch import Batch
from razordeploy.errors import BackendError
from razordeploy.job import Progress, PTQJob
from razordeploy.pipeline import run_ptq
from razordeploy.quantization.algorithms.layers import layers
from razordeploy.quantization.algorithms.learned import AdaRound, LSQFinetune, QDrop
from razordeploy.quantization.calibrate import Interrupted
from razordeploy.recovery_goal import cosine
from razordeploy.report.recovery import outcome
from razordeploy.report.write import read_report, write_report


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """A few optimiser steps are enough to see that each algorithm is tried."""
    from razordeploy.quantization.algorithms import table

    for name, cls in (("AdaRound", AdaRound), ("QDrop", QDrop), ("LSQFinetune", LSQFinetune)):
        quick = type(name, (cls,), {"__post_init__": lambda self: object.__setattr__(self, "steps", 10)})
        monkeypatch.setitem(table.ALGORITHMS, name, quick)


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 6)
    ).eval()


def stream(seed):
    def opened():
        generator = torch.Generator().manual_seed(seed)
        for _ in range(2):
            coarse = torch.randn(32, 3, 3, 3, generator=generator)
            x = nn.functional.interpolate(coarse, size=(8, 8), mode="bilinear")
            yield Batch((x,), net()(x).argmax(1))

    return opened


def coarse(bits=2, **more):
    qconfig = {"w_qscheme": {"bit": bits, "per_channel": True}}
    return QuantizeConfig.parse({"global_qconfig": qconfig, **more}, "test")


@pytest.fixture
def job(tmp_path):
    def make(**changes):
        options = {
            "model": net(),
            "example_inputs": (torch.zeros(2, 3, 8, 8),),
            "calibration": stream(0),
            "evaluation": stream(1),
            "backends": ["academic"],
            "work_dir": tmp_path,
            "quantize": coarse(),
            "deploy": DeployConfig(max_drop=0.0),
            "benchmark_seconds": 0,
            "recover": True,
            "data_fingerprint": "the same",
        }
        return PTQJob(**{**options, **changes})

    return make


def record(result, backend="academic"):
    return result.backends[backend]["recovery"]


def test_it_recovers_what_coarse_weights_lose_and_says_how(job, tmp_path):
    result = run_ptq(job(deploy=DeployConfig(max_drop=20.0)))
    found = record(result)
    assert found["start"] > 30 and found["end"] <= 20.0 and found["met"]
    assert result.backends["academic"]["gap"]["float_to_engine"] == pytest.approx(found["end"])
    kept = [s for s in found["steps"] if s["kept"]]
    assert sum(s["gained"] for s in kept) == pytest.approx(found["start"] - found["end"])
    assert all(s["seconds"] > 0 for s in found["steps"]) and result.backends["academic"]["seconds"]["recover"] > 0
    write_report(build_report(result, ["academic"], model="net"), tmp_path)
    assert read_report(tmp_path)["backends"]["academic"]["recovery"]["steps"][0]["name"] == "range search"
    page = (tmp_path / "report.html").read_text()
    assert "range search" in page and "bias correction" in page


def test_a_target_out_of_reach_fails_with_the_best_kept(job):
    plain = run_ptq(job(recover=False)).backends["academic"]["gap"]["float_to_engine"]
    result = run_ptq(job(quantize=coarse(bits=1)))
    entry = result.backends["academic"]
    assert not entry["passed"] and not entry["recovery"]["met"]
    assert entry["gap"]["float_to_engine"] <= entry["recovery"]["start"]
    assert [s["name"] for s in entry["recovery"]["steps"]][-1] == "training"
    assert "no training data" in entry["recovery"]["steps"][-1]["note"]
    assert [s["name"] for s in entry["recovery"]["steps"] if s["name"].endswith("in float")] == [
        "1 in float",
        "2 in float",
    ]
    assert plain > 0


def test_nothing_is_tried_where_the_gap_holds_already(job, monkeypatch):
    monkeypatch.setattr(recovery, "engine_drop", lambda *a: pytest.fail("tried"))
    result = run_ptq(job(quantize=coarse(bits=8), deploy=DeployConfig(max_drop=50.0)))
    assert record(result)["steps"] == [] and record(result)["met"]


def test_what_is_worse_is_not_kept_and_what_fails_is_noted(job, monkeypatch):
    drops = iter([90.0, BackendError("no kernel"), 80.0])

    def drop(*args):
        value = next(drops, 99.0)
        if isinstance(value, Exception):
            raise value
        return value

    monkeypatch.setattr(recovery, "engine_drop", drop)
    plain = run_ptq(job(recover=False)).backends["academic"]
    result = run_ptq(job())
    found = record(result)
    assert not any(s["kept"] for s in found["steps"]) and found["end"] == found["start"]
    assert "no kernel" in found["steps"][1]["note"]
    assert result.backends["academic"]["metrics"]["engine"] == plain["metrics"]["engine"]


def uneven(act=nn.ReLU):
    """Three channels set the range of all; as wide as every backend's kernels want it."""
    torch.manual_seed(0)
    convs = (nn.Conv2d(3, 16, 3, padding=1), act(), nn.Conv2d(16, 16, 3), act(), nn.Conv2d(16, 16, 3), act())
    model = nn.Sequential(*convs, nn.Flatten(), nn.Linear(256, 6)).eval()
    with torch.no_grad():
        model[0].weight[:3] *= 300
        model[0].bias[:3] *= 300
        model[2].weight[:, :3] /= 300
    return model


def labelled(model, seed):
    """The stream with what ``model`` says as labels."""

    def opened():
        for batch in stream(seed)():
            yield Batch(batch.inputs, model(batch.inputs[0]).argmax(1).detach())

    return opened


def of(model, **options):
    return {"model": model, "evaluation": labelled(model, 1), "quantize": QuantizeConfig(), **options}


@pytest.mark.parametrize("backend", ("openvino", "onnxruntime", "tensorrt", "academic"))
def test_every_backend_recovers(job, backend):
    """TensorRT, without a GPU, as it is simulated."""
    result = run_ptq(job(**of(uneven(), backends=[backend], deploy=DeployConfig(max_drop=2.0))))
    found, entry = record(result, backend), result.backends[backend]
    assert found["start"] > 10 and found["met"] and "CrossLayerEqualization" in found["algorithms"]
    side = "simulated" if "engine" not in entry["metrics"] else "engine"
    assert entry["gap"][f"float_to_{side}"] == pytest.approx(found["end"])


@pytest.mark.timeout(900)  # it compiles, which takes its time where others do too
def test_the_compilers_engine_recovers(job, monkeypatch):
    pytest.importorskip("torch._inductor", reason="needs torch._inductor")
    monkeypatch.setattr(recovery, "STEPS", tuple(step for step in recovery.STEPS if step[0] == "equalization"))
    monkeypatch.setattr(recovery_float, "_MOST_FLOAT", 0.0)
    result = run_ptq(job(**of(uneven(), backends=["torch_native"], deploy=DeployConfig(max_drop=4.0))))
    found, entry = record(result, "torch_native"), result.backends["torch_native"]
    assert found["start"] > 10 and found["met"] and [s["name"] for s in found["steps"]] == ["equalization"]
    assert entry["gap"]["float_to_engine"] == pytest.approx(found["end"]) and entry["passed"]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_step_is_tried_on_the_compilers_engine(job):
    """Behind a SiLU nothing can be equalized, so that every other step has its turn."""
    model = uneven(nn.SiLU)
    result = run_ptq(job(**of(model, backends=["torch_native"])))
    found = record(result, "torch_native")
    assert found["start"] > 10 and found["end"] < found["start"]
    tried = [s["name"] for s in found["steps"] if "drop" in s]
    assert set(tried) >= {name for name, _ in recovery.STEPS} - {"equalization"}
    assert result.backends["torch_native"]["gap"]["float_to_engine"] == pytest.approx(found["end"])


def test_what_is_tried_writes_no_float_twin(job, monkeypatch):
    seen = []
    made = recovery.Deployment.export_job

    def spied(self, *args, **kwargs):
        seen.append(kwargs.get("with_twin", True))
        return made(self, *args, **kwargs)

    monkeypatch.setattr(recovery.Deployment, "export_job", spied)
    run_ptq(job(**of(uneven(), backends=["onnxruntime"], deploy=DeployConfig(max_drop=2.0))))
    assert seen[0] is True and seen[-1] is True and set(seen[1:-1]) == {False}


def test_an_interrupted_recovery_goes_on_where_it_was(job, monkeypatch):
    calls = []
    measured = recovery.engine_drop

    def counted(deployment, backend, draft):
        calls.append(1)
        return measured(deployment, backend, draft)

    monkeypatch.setattr(recovery, "engine_drop", counted)
    whole = record(run_ptq(job()))
    names = [s["name"] for s in whole["steps"]]
    for file in (job().work_dir / "cache").glob("recovery-*.pt"):
        file.unlink()
    calls.clear()
    stopped = Progress(stop=lambda: len(calls) == 2)
    with pytest.raises(Interrupted, match="steps are kept"):
        run_ptq(job(progress=stopped))
    calls.clear()
    again = record(run_ptq(job()))
    assert [s["name"] for s in again["steps"]] == names
    assert len(calls) == sum("drop" in s for s in whole["steps"]) - 1 or len(calls) < len(names)
    assert again["end"] == whole["end"] and again["algorithms"] == whole["algorithms"]


def test_without_labels_the_outputs_are_what_is_recovered(job, tmp_path):
    plain = run_ptq(job(evaluation=None, recover=False)).artifacts["academic"]
    x = torch.cat([batch.inputs[0] for batch in stream(1)()])
    expected = net()(x).detach().numpy()
    before = cosine(expected, rd.Engine(plain)(x.numpy()))
    result = run_ptq(job(evaluation=None, deploy=DeployConfig(min_cosine=0.94)))
    found = record(result)
    assert found["of"] == "outputs" and found["target"] == pytest.approx(6.0)
    assert found["start"] > 6.0 >= found["end"] and found["met"]
    after = cosine(expected, rd.Engine(result.artifacts["academic"])(x.numpy()))
    assert before < 0.94 <= after + 0.01  # on samples that neither step has seen
    assert result.backends["academic"]["passed"]
    text = outcome(found)
    assert text.startswith(f"Cosine to the float model's outputs from {1 - found['start'] / 100:.4f} to ")
    assert "at least 0.9400" in text


def test_without_labels_a_cosine_that_cannot_be_reached_is_a_failure(job, monkeypatch):
    monkeypatch.setattr(recovery, "STEPS", (("range search", ("RangeSearch",)),))
    monkeypatch.setattr(recovery_float, "_MOST_FLOAT", 0.1)
    entry = run_ptq(job(evaluation=None, deploy=DeployConfig(min_cosine=1.0))).backends["academic"]
    assert not entry["recovery"]["met"] and not entry["passed"]
    assert "keep a cosine of 0." in entry["failures"][0] and entry["failures"][0].endswith("under 1.0")


def test_without_labels_an_engine_that_is_close_enough_is_kept(job):
    found = record(run_ptq(job(evaluation=None, quantize=coarse(bits=8), deploy=DeployConfig(min_cosine=0.9))))
    assert found["met"] and found["steps"] == []
    assert outcome(found).endswith("0.9000 is enough: nothing was tried.")


@pytest.mark.parametrize(
    ("samples", "fixed", "held", "learned"),
    [(400, None, 64, 336), (96, None, 24, 72), (3, None, 3, 3), (96, 16, 16, 80), (16, 16, 16, 16)],
)
def test_outputs_are_compared_on_samples_that_nothing_is_learned_from(samples, fixed, held, learned, monkeypatch):
    from types import SimpleNamespace

    from razordeploy.quantization.algorithms.data import Work

    sizes = []

    def run(*inputs):
        sizes.append(len(inputs[0]))
        return inputs[0]

    monkeypatch.setattr(recovery_goal, "torch_runner", lambda module: run)
    captured = SimpleNamespace(dynamic_batch=fixed is None, batch_size=fixed or 2, graph_module=None)
    deployment = SimpleNamespace(captured=captured, job=SimpleNamespace(deploy=DeployConfig()))
    every = Work(inputs=(torch.randn(samples, 3),), batch=fixed or 32)
    _, work = recovery_goal.goal_of_outputs(deployment, None, every)
    assert (sum(sizes), work.samples) == (held, learned)


def test_operations_go_back_to_float_with_their_own_weights(job, tmp_path):
    result = run_ptq(job(quantize=coarse(bits=1)))
    plan = json.loads((tmp_path / "academic" / "placement.json").read_text())
    reverted = record(result)["float"]
    if reverted:
        reasons = {op["node"]: op["reason"] for op in plan["ops"]}
        assert all("when it alone is quantized" in reasons[node] for node in reverted)


def test_from_python(tmp_path):
    import razordeploy as rd

    batches = [b.inputs[0] for b in stream(0)()]
    artifact = rd.ptq(
        net(),
        (x for x in batches),
        example_inputs=(batches[0][:2],),
        backend="academic",
        out_dir=tmp_path,
        evaluation=[(b.inputs[0], b.target) for b in stream(1)()],
        quantize={"global_qconfig": {"w_qscheme": {"bit": 2}}},
        deploy={"max_drop": 25.0},
        recover=True,
    )
    found = json.loads((tmp_path / "report.json").read_text())["backends"]["academic"]["recovery"]
    assert found["met"] and found["end"] < found["start"] and artifact.path.is_dir()


def test_what_training_gave_is_asked_for_again_and_not_read_from_the_steps(job, monkeypatch):
    monkeypatch.setattr(recovery, "STEPS", recovery.STEPS[:1])
    monkeypatch.setattr(recovery_float, "_MOST_FLOAT", 0.0)
    asked = []

    def finetune(backend, draft, folder):
        asked.append(backend.name)
        trained = draft.copied()
        for layer in layers(trained.captured):  # weights under names of the training's own
            name = f"_trained_{layer.name}"
            trained.captured.graph_module.register_buffer(name, layer_weight(trained, layer))
            layer.weight.target = name
        trained.keep_float({layer.name: "trained" for layer in layers(trained.captured)}, [images()])
        return trained

    first, second = (record(run_ptq(job(finetune=finetune))) for _ in range(2))
    assert asked == ["academic", "academic"]
    assert first["steps"][-1]["name"] == "training" and first["steps"][-1]["kept"] and first["met"]
    assert second["end"] == first["end"]


def layer_weight(draft, layer):
    return draft.float_constant(layer.weight).clone()


def images():
    return next(iter(stream(0)())).inputs


def six(**options):
    """Six layers with coarse weights."""
    torch.manual_seed(0)
    convs = [layer for _ in range(5) for layer in (nn.Conv2d(3, 3, 3, padding=1), nn.Tanh())]
    model = nn.Sequential(*convs, nn.Flatten(), nn.Linear(192, 6)).eval()
    return {**of(model, quantize=coarse(bits=3)), **options}


def only_float(monkeypatch, share=1.0):
    monkeypatch.setattr(recovery, "STEPS", ())
    monkeypatch.setattr(recovery_float, "_MOST_FLOAT", share)


def test_as_few_as_hold_stay_float(job, monkeypatch):
    only_float(monkeypatch)
    monkeypatch.setattr(recovery, "engine_drop", lambda deployment, backend, draft: 30.0 - 5 * len(draft.kept_float))
    monkeypatch.setattr(recovery, "_drop_of", lambda entry: 30.0)
    found = record(run_ptq(job(**six(deploy=DeployConfig(max_drop=16.0)))))
    assert [s["name"] for s in found["steps"]] == ["1 in float", "2 in float", "4 in float", "3 in float"]
    assert len(found["float"]) == 3 and found["end"] == 15.0 and found["met"]
    assert sum(s["gained"] for s in found["steps"] if s["kept"]) == pytest.approx(found["start"] - found["end"])


def test_an_interruption_between_counts_costs_no_float_operation(job, monkeypatch):
    only_float(monkeypatch)
    calls = []

    def drop(deployment, backend, draft):
        calls.append(len(draft.kept_float))
        return 30.0 - 5 * len(draft.kept_float)

    monkeypatch.setattr(recovery, "engine_drop", drop)
    monkeypatch.setattr(recovery, "_drop_of", lambda entry: 30.0)
    options = six(deploy=DeployConfig(max_drop=16.0))
    with pytest.raises(Interrupted, match="3 finished steps are kept"):
        run_ptq(job(**options, progress=Progress(stop=lambda: len(calls) == 3)))
    found = record(run_ptq(job(**options)))
    assert calls == [1, 2, 4, 3] and len(found["float"]) == 3


def test_without_labels_simulations_say_how_many_stay_float(job, monkeypatch):
    only_float(monkeypatch)
    trials, trial = [], recovery_goal.trial
    monkeypatch.setattr(recovery_goal, "trial", lambda *args: trials.append(args) or trial(*args))
    found = record(run_ptq(job(**six(evaluation=None, deploy=DeployConfig(min_cosine=0.998)))))
    assert found["of"] == "outputs" and found["met"] and len(found["steps"]) == 1
    assert found["steps"][0]["name"] == f"{len(found['float'])} in float" and 1 <= len(found["float"]) < 6
    assert len(trials) == 2  # the plain engine, and the one


def test_without_labels_a_goal_that_floats_cannot_reach_costs_no_speed(job, monkeypatch):
    only_float(monkeypatch, share=0.4)
    found = record(run_ptq(job(**six(evaluation=None, deploy=DeployConfig(min_cosine=0.9999)))))
    assert not found["met"] and found["float"] == []
    assert "even 2 operations in float keep a cosine of 0." in found["steps"][0]["note"]


def test_without_labels_nothing_is_learned_where_activations_alone_lose_too_much(job, monkeypatch):
    from razordeploy.quantization.algorithms import table

    for name in ("AdaRound", "QDrop", "LSQFinetune"):
        monkeypatch.setitem(table.ALGORITHMS, name, lambda: pytest.fail("learned"))
    qconfig = {"w_qscheme": {"bit": 8}, "a_qscheme": {"bit": 2}}
    quantize = QuantizeConfig.parse({"global_qconfig": qconfig}, "test")
    found = record(run_ptq(job(evaluation=None, quantize=quantize)))
    notes = {s["name"]: s["note"] for s in found["steps"]}
    for name in ("learned rounding", "block reconstruction", "block fine-tuning"):
        assert notes[name].startswith("activations alone keep a cosine of 0.") and notes[name].endswith("gives 0.9900")


def test_without_labels_learning_has_a_time_limit(job, monkeypatch):
    monkeypatch.setattr(recovery, "_LEARN_SECONDS", 0.0)
    monkeypatch.setattr(recovery, "STEPS", (("learned rounding", ("AdaRound",)),))
    found = record(run_ptq(job(evaluation=None)))
    assert found["steps"][0]["note"] == "the 0 s for steps that learn are used up"
