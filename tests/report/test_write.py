import json
import math
import re

import numpy as np
import pytest

from razordeploy.errors import UsageError
from razordeploy.report.write import read_report, remove_report, write_report


def test_writes_both_and_reads_back(tmp_path, report):
    json_path, html_path = write_report(report, tmp_path / "work")
    assert (json_path.name, html_path.name) == ("report.json", "report.html")
    assert sorted(path.name for path in (tmp_path / "work").iterdir()) == ["report.html", "report.json"]
    assert read_report(tmp_path / "work") == read_report(json_path) == report


def test_numbers_that_json_lacks_become_null(tmp_path, report):
    entry = report["backends"]["openvino"]
    entry["parity"]["sqnr_db"] = math.inf
    entry["metrics"]["engine"]["top1"] = np.float32("nan")
    entry["layers"][0]["sqnr_db"] = -math.inf
    entry["speedup"] = np.float64(2.0)
    json_path, html_path = write_report(report, tmp_path)
    read = json.loads(json_path.read_text(), parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    got = read["backends"]["openvino"]
    assert (got["parity"]["sqnr_db"], got["metrics"]["engine"]["top1"], got["speedup"]) == (None, None, 2.0)
    assert not re.search(r">\s*-?(nan|inf)", html_path.read_text())


def test_an_unknown_field_writes_nothing(tmp_path, report):
    with pytest.raises(UsageError, match="unknown field 'extra'"):
        write_report(report | {"extra": 1}, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_page_that_cannot_be_drawn_does_not_cost_the_numbers(tmp_path, report, monkeypatch):
    def fail(*args):
        raise ValueError("no page")

    monkeypatch.setattr("razordeploy.report.html.render_html", fail)
    with pytest.raises(ValueError, match="no page"):
        write_report(report, tmp_path)
    assert read_report(tmp_path) == report


def test_a_name_that_is_no_unicode_is_written(tmp_path, report):
    report["backends"]["openvino"]["files"]["graph"] = b"caf\xe9.xml".decode(errors="surrogateescape")
    json_path, html_path = write_report(report, tmp_path)
    assert read_report(json_path) == report
    assert "caf\ufffd.xml" in html_path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "cannot read"), ("[]", "schema_version None"), ('{"schema_version": 9}', "schema_version 9, expected 1")],
)
def test_a_foreign_file_is_one_line(tmp_path, text, message):
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(UsageError, match=message):
        read_report(tmp_path)


def test_no_report(tmp_path):
    with pytest.raises(UsageError, match="found nothing; give the work dir of a run"):
        read_report(tmp_path)


def test_remove(tmp_path, report):
    write_report(report, tmp_path)
    (tmp_path / "other").touch()
    remove_report(tmp_path)
    remove_report(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["other"]
