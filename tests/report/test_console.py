import io
import shlex
from pathlib import Path

import pytest
from rich.console import Console

from razordeploy.report.console import print_report

DIRECTORY = Path("work_dirs/resnet20")


def shown(report, *, width=80, **options):
    stream = io.StringIO()
    console = Console(file=stream, width=width, **options)
    print_report(report, DIRECTORY, seconds=41.23, console=console)
    return stream.getvalue()


TABLE = """\
              float  simul.  engine    gap   int8   p50  speed
 backend       top1    top1    top1    pts    ops    ms     up    size  verdict
 ──────────────────────────────────────────────────────────────────────────────
 openvino     91.50   91.44   91.38   0.12  29/31  1.31  2.37x  296 kB  passed
 onnxruntime  91.50   91.44   91.52  -0.02  29/31  1.31  1.90x  296 kB  passed
"""


@pytest.mark.parametrize("width", [80, 200])
def test_the_table_reads_the_same_at_80_and_200_columns(report, width):
    lines = [line.rstrip() for line in shown(report, width=width).splitlines()]
    assert "\n".join(line for line in lines if line).startswith(TABLE)


def test_the_longest_numbers_fit_into_80_columns(report):
    entry = report["backends"].pop("onnxruntime")
    report["backends"]["torch_native_nightly"] = entry
    entry["metrics"] = {point: {"top1": 100.0} for point in ("float", "simulated", "engine")}
    entry["gap"]["float_to_engine"] = -12.34
    entry["coverage"] |= {"int8": 1120, "planned": 1124}
    entry["latency_ms"]["engine"]["p50"] = 1234.5
    entry["speedup"] = 12.34
    entry["size_bytes"]["engine"] = 1_023_000_000
    table = shown(report).split("razordeploy evaluate")[0]
    assert max(map(len, table.splitlines())) <= 80
    for text in ("100.00", "-12.34", "1120/1124", "1234", "12.34x", "1.02 GB", "passed"):
        assert text in table


def test_the_last_line_is_for_scripts(report):
    last = shown(report, width=40).splitlines()[-1]
    assert last == "PASSED gap 0.12 pts (limit 1.0) | 41.2s | report: work_dirs/resnet20/report.html"


def test_a_failed_run(report, failed_backend):
    report["backends"]["openvino"] |= {"passed": False, "failures": ["lost 1.50 points, limit 1.0"]}
    report["backends"]["openvino"]["gap"]["float_to_engine"] = 1.5
    report["backends"]["tensorrt"] = failed_backend
    report["warnings"] = ["only 8 samples"]
    lines = [line.strip() for line in shown(report).splitlines()]
    assert "openvino: lost 1.50 points, limit 1.0" in lines
    assert "tensorrt: 'tensorrt' is not installed; pip install 'razordeploy[tensorrt]'" in lines
    assert "warning: only 8 samples" in lines
    assert next(line for line in lines if line.startswith("tensorrt ")).split() == ["tensorrt", *"--------", "ERROR"]
    assert lines[-1].startswith("FAILED gap 1.50 pts (limit 1.0) | ")


def test_what_runs_in_float_against_the_plan_is_told(report):
    ops = report["backends"]["openvino"]["ops"]
    for op in ops[:2]:
        op |= {"state": "float", "reason": "the engine runs f32", "planned": True}
    lines = [line.strip() for line in shown(report).splitlines()]
    told = "openvino: 2 operations run in float, not as planned (1 conv2d, 1 relu): the engine runs f32"
    assert told in lines
    assert not [line for line in lines if line.startswith("onnxruntime: ")]


def test_an_engine_that_is_slower_than_float_stands_out(report, monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    report["backends"]["openvino"]["speedup"] = 0.87
    text = shown(report, force_terminal=True)
    assert "\x1b[33m0.87x\x1b[0m" in text
    assert "\x1b[33m1.90x" not in text


def test_nothing_measured(report, failed_backend):
    report["backends"] = {"tensorrt": failed_backend}
    text = shown(report)
    assert "razordeploy doctor" in text
    assert "evaluate" not in text
    assert text.splitlines()[-1].startswith("FAILED gap not measured | ")


def test_next_commands_can_be_pasted(report):
    stream = io.StringIO()
    folder = Path("a  folder; with $strange 'name'")
    print_report(report, folder, seconds=1, console=Console(file=stream, width=30))
    commands = [line.strip() for line in stream.getvalue().splitlines() if line.startswith("  ")]
    evaluate, benchmark, python = [shlex.split(line) for line in commands if line.startswith(("razor", "python"))]
    assert evaluate == ["razordeploy", "evaluate", str(folder)]
    assert benchmark == ["razordeploy", "benchmark", str(folder)]
    assert python[:2] == ["python", "-c"]
    compile(python[2], "<command>", "exec")
    assert str(folder / "openvino") in python[2]


def test_colour_only_on_a_terminal_that_wants_it(report, monkeypatch):
    assert "\x1b" not in shown(report)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[32m" in shown(report, force_terminal=True)
    monkeypatch.setenv("NO_COLOR", "1")
    plain = shown(report, force_terminal=True)
    assert "\x1b[32m" not in plain
    assert "passed" in plain


def test_names_cannot_act_on_the_terminal(report):
    entry = report["backends"].pop("openvino")
    report["backends"]["[red]\x1b[2Jx"] = entry
    entry["failures"] = ["class [bold]\x1b]0;title\x07[/nonsense]"]
    report["warnings"] = ["[/]\x9b2J"]
    text = shown(report)
    assert not {"\x1b", "\x07", "\x9b"} & set(text)
    for literal in ("[red]", "[bold]", "[/nonsense]", "[/]"):
        assert literal in text


def test_a_terminal_without_unicode(report):
    report["warnings"] = ["in café"]
    report["backends"]["モデル"] = report["backends"]["openvino"]
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii", errors="strict")
    print_report(report, DIRECTORY, seconds=1, console=Console(file=stream, width=80))
    stream.flush()
    text = raw.getvalue().decode("ascii")
    assert "warning: in caf?" in text
    rows = [line.replace("|", " ").split() for line in text.splitlines()]
    assert [row[0] for row in rows if row[1:3] == ["91.50", "91.44"]] == ["openvino", "onnxruntime", "???"]
    assert max(len(line) for line in text.splitlines() if line.startswith(("|", "+"))) <= 80
