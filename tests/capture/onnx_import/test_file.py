"""Files that cannot be imported, each told in one line; and what lies beside a file."""

from __future__ import annotations

import numpy as np
import pytest

from razordeploy.capture.onnx_import import file as onnx_file
from razordeploy.capture.onnx_import.file import is_onnx, read_onnx, specs
from razordeploy.capture.onnx_import.load import import_onnx
from razordeploy.errors import ModelError
from tests.capture.onnx_import.conftest import node, onnx, random, write

X = {"x": ("N", 3, 8, 8)}
CONV = {"w": random(4, 3, 3, 3)}


def message(path, **options):
    with pytest.raises(ModelError) as caught:
        import_onnx(path, **options)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.fixture
def good(tmp_path):
    return write(tmp_path / "good.onnx", [node("Conv", ["x", "w"])], X, CONV)


def test_names():
    assert is_onnx("a/b.onnx")
    assert is_onnx("B.ONNX")
    assert not is_onnx("b.onnx.data")
    assert not is_onnx(3)


def test_what_is_no_file(tmp_path):
    assert message(tmp_path / "no.onnx") == f"expected an ONNX file at {tmp_path / 'no.onnx'}, found nothing"
    assert message(tmp_path).endswith("found a folder")


@pytest.mark.parametrize("content", [b"", b"these are words\n" * 9, b"PK\x03\x04" + bytes(range(256)) * 3])
def test_what_is_no_onnx_file(tmp_path, content):
    (tmp_path / "m.onnx").write_bytes(content)
    assert f"{tmp_path / 'm.onnx'} is no ONNX file" in message(tmp_path / "m.onnx")


def test_truncated(good):
    good.write_bytes(good.read_bytes()[:-200])
    assert "is no ONNX file, or a damaged one" in message(good)


def test_a_value_that_nothing_makes(tmp_path):
    text = message(write(tmp_path / "m.onnx", [node("Add", ["x", "lost"], name="sum")], X))
    assert "is damaged: node 'sum' (Add) reads 'lost', which nothing makes" in text


class TestWeightsBesideTheFile:
    @pytest.fixture
    def split(self, tmp_path):
        options = {"save_as_external_data": True, "location": "m.data", "size_threshold": 0}
        return write(tmp_path / "m.onnx", [node("Conv", ["x", "w"])], X, CONV, **options)

    def test_are_read(self, split):
        module, _ = import_onnx(split)
        np.testing.assert_array_equal(module.w.numpy(), CONV["w"])

    def test_are_missing(self, split):
        (split.parent / "m.data").unlink()
        assert f"keeps its weights in 'm.data', which is not beside it; copy it to {split.parent}" in message(split)

    def test_are_truncated(self, split):
        (split.parent / "m.data").write_bytes(b"short")
        assert "m.data is truncated: 'w' needs 432 bytes, it has 5" in message(split)

    @pytest.mark.parametrize("place", ["../m.data", "/etc/passwd"])
    def test_are_elsewhere(self, split, place):
        model = onnx.load(split, load_external_data=False)
        for entry in model.graph.initializer[0].external_data:
            if entry.key == "location":
                entry.value = place
        split.write_bytes(model.SerializeToString())
        assert f"keeps 'w' in '{place}', outside of its own folder" in message(split)


@pytest.mark.parametrize(
    ("nodes", "options", "expected"),
    [
        ([node("FusedConv", ["x", "w"], domain="com.ms")], {}, "node 'fusedconv' is a FusedConv of 'com.ms'; expected"),
        ([node("NonZero", ["x"], name="where")], {}, "operators that cannot be imported: NonZero (node 'where')"),
        ([node("QuantizeLinear", ["x", "s"])], {}, "is quantized already: node 'quantizelinear' is a QuantizeLinear"),
        ([node("Conv", ["x", "w"])], {"opset": 8}, "is of opset 8, expected 9 to 25; export it again"),
        ([node("Relu", ["x"])], {"types": {"x": onnx.TensorProto.FLOAT16}}, "is in float16: 'x'; expected float32"),
        ([node("Conv", ["x", "h"])], {}, "is in float16: 'h'; expected float32"),
        ([node("Resize", ["x", "", "scales"], antialias=1, mode="linear")], {"opset": 18}, "node 'resize' (Resize"),
        ([node("Reshape", ["x", "to"])], {}, "takes only"),
        ([node("MaxPool", ["x"], kernel_shape=[9, 9])], {}, "node 'maxpool' (MaxPool, opset 17): it cannot run"),
    ],
)  # fmt: skip
def test_what_is_not_imported(tmp_path, nodes, options, expected):
    constants = {
        **CONV,
        "s": np.float32(0.1),
        "h": CONV["w"].astype(np.float16),
        "scales": np.float32([1, 1, 2, 2]),
        "to": np.array([2, -1]),
    }
    if expected == "takes only":  # a batch of two that the file's own Reshape fixes: the import runs, on two
        module, inputs = import_onnx(write(tmp_path / "m.onnx", nodes, X, constants, **options))
        assert module(*inputs).shape == (2, 192)
        return
    assert expected in message(write(tmp_path / "m.onnx", nodes, X, constants, **options))


def test_all_lacking_operators_are_named_once(tmp_path):
    nodes = [node("NonZero", ["x"], name="a"), node("NonZero", ["x"], name="b"), node("Det", ["x"], name="c")]
    text = message(write(tmp_path / "m.onnx", nodes, X))
    assert "NonZero (node 'a'), Det (node 'c'); cut them off" in text


def test_a_shape_from_data(tmp_path):
    nodes = [node("ReduceMax", ["x"], keepdims=0), node("Cast", ["reducemax_out"], to=7)]
    nodes += [node("Unsqueeze", ["cast_out", "zero"]), node("Expand", ["c", "unsqueeze_out"])]
    path = write(tmp_path / "m.onnx", nodes, X, {"zero": np.array([0]), "c": np.float32([1])})
    assert "node 'expand' (Expand, opset 17): its input 1 depends on the data" in message(path)


def test_inputs_that_are_initializers_are_none(tmp_path):
    inputs = {**X, "w": (4, 3, 3, 3)}
    found, outputs = specs(read_onnx(write(tmp_path / "m.onnx", [node("Conv", ["x", "w"])], inputs, CONV)))
    assert [(s.name, s.shape, s.dtype) for s in found] == [("x", (None, 3, 8, 8), "float32")]
    assert [(s.name, s.shape) for s in outputs] == [("conv_out", (None, 4, 6, 6))]


def test_functions_of_the_file_are_written_out(tmp_path):
    path = write(tmp_path / "m.onnx", [node("Relu", ["x"])], X)
    model = onnx.load(path)
    sets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("mine", 1)]
    body = [onnx.helper.make_node("Sigmoid", ["a"], ["s"]), onnx.helper.make_node("Mul", ["a", "s"], ["b"])]
    model.functions.append(onnx.helper.make_function("mine", "Gate", ["a"], ["b"], body, sets[:1]))
    model.opset_import.append(sets[1])
    model.graph.node[0].op_type, model.graph.node[0].domain = "Gate", "mine"
    onnx.save(model, path)
    module, _ = import_onnx(path)
    assert [n.op.type for n in module.nodes] == ["Swish"]


def test_opsets_are_those_of_the_tests():
    assert onnx_file.OPSETS[0] <= 11
    assert onnx_file.OPSETS[1] >= 22
