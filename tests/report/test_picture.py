"""Cells, legends and reasons of the picture of the graph."""

from razordeploy.quantization.op_kinds import DEPTHWISE, KINDS
from razordeploy.report import picture
from razordeploy.report.blocks import blocks
from tests.report.conftest import operations


def op(state="int8", kind="conv2d", **fields):
    return {"node": "n", "op": kind, "module": "m", "state": state, **fields}


def test_a_line_holds_its_cells_and_says_them_in_words():
    ops = operations(14, stages=1)
    (line,) = picture.lines(blocks([o["module"] for o in ops]), ops, list(range(1, 15)))
    assert line.path == "backbone.stage0"
    assert [len(part) for part in line.parts] == [7, 7]
    assert "".join(cell.letter for cell in line.parts[0]) == "CfC+f·f"
    assert [cell.state for cell in line.parts[0]] == ["int8", "fused", "int8", "int8", "fused", "moves", "float"]
    assert [cell.number for part in line.parts for cell in part] == list(range(1, 15))
    assert line.summary == "6 int8 kernel, 4 inside the kernel before it, 2 only moves values, 2 float"


def test_every_kind_of_the_vocabulary_has_a_letter_of_its_own():
    others = {kind for kind in (*KINDS, *DEPTHWISE) if picture.family(kind) == "other"}
    assert others == set()
    assert picture.family("conv_transpose2d") == "conv_transpose"
    assert picture.family("depthwise_conv2d") == "depthwise"
    assert picture.family("exp") == "other"


def test_a_state_from_elsewhere_counts_as_float():
    assert picture.state_of(op("int4")) == "float"
    assert picture.state_legend([op("int4"), op(), op()]) == [("int8", "int8 kernel", 2), ("float", "float", 1)]


def test_a_long_path_keeps_its_end():
    assert picture.shortened("a.b") == "a.b"
    short = picture.shortened(f"{'x' * 100}.blocks.3")
    assert len(short) == 44
    assert short.startswith("…")
    assert short.endswith(".blocks.3")


def test_reasons_are_put_together_and_what_was_planned_comes_first():
    ops = [op("float", "gelu", reason="by choice")] * 5 + [op("float", "softmax", reason="by choice")]
    ops += [op("float", "linear", reason="runs f32", planned=True), op("float"), op()]
    found = picture.float_reasons({"passed": True, "ops": ops})
    assert [(r.count, r.text, r.kinds, r.planned) for r in found] == [
        (1, "runs f32", "1 linear", True),
        (6, "by choice", "5 gelu, 1 softmax", False),
        (1, "no reason given", "1 conv2d", False),
    ]


def test_reasons_of_a_report_without_operations_come_from_the_coverage():
    lost = [{"node": "n", "op": "Gelu", "reason": "r"}] * 2
    found = picture.float_reasons({"passed": True, "coverage": {"planned": 9, "int8": 7, "float": lost}})
    assert [(r.count, r.text, r.kinds) for r in found] == [(2, "r", "2 Gelu")]
    assert picture.float_reasons({"passed": True}) == []


def test_many_kinds_are_counted_together():
    ops = [op("float", f"op{i}", reason="r") for i in range(9)]
    (reason,) = picture.float_reasons({"passed": True, "ops": ops})
    assert reason.kinds.endswith("1 op5, 3 others")
