"""Templates: fields, quoting, branches and files."""

from __future__ import annotations

import pytest

from razordeploy.errors import RecipeError
from razordeploy.hpo.args import parse_args
from razordeploy.hpo.command import check_template, render

FIXED = {"trial": "7", "trial_dir": "/tmp/t 7", "seed": "1", "python": "/usr/bin/python3"}


def _args(**values):
    return parse_args(values, "hpo.yaml")


def test_values_are_words_of_their_own_whatever_is_in_them():
    args = _args(name=["a b; rm -rf ~", "$HOME"], lr={"type": "Real", "low": 0, "high": 1})
    template = "{python} run.py --name={name} --lr {lr:.3f} --out '{trial_dir}/a b' {{braces}}"
    check_template(template, args, "hpo.yaml")
    made = render(template, args, {"name": "a b; rm -rf ~", "lr": 0.12345}, FIXED)
    assert made.words == (
        *("/usr/bin/python3", "run.py", "--name=a b; rm -rf ~", "--lr", "0.123", "--out", "/tmp/t 7/a b", "{braces}"),
    )


def test_a_branch_brings_its_words():
    inner = {
        "type": "Nested",
        "options": {"on": {"text": "--nesterov {k}", "args": {"k": [1, 2]}}, "off": {"text": ""}},
    }
    args = _args(
        opt={"type": "Nested", "options": {"sgd": {"text": "--opt sgd {n}", "args": {"n": inner}}, "adam": None}}
    )
    check_template("run {opt}", args, "hpo.yaml")
    values = {"opt": {"option": "sgd", "n": {"option": "on", "k": 2}}}
    assert render("run {opt}", args, values, FIXED).words == ("run", "--opt", "sgd", "--nesterov", "2")
    off = {"opt": {"option": "sgd", "n": {"option": "off"}}}
    assert render("run {opt}", args, off, FIXED).words == ("run", "--opt", "sgd")
    assert render("run --o={opt}", args, {"opt": {"option": "adam"}}, FIXED).words == ("run", "--o=adam")


def test_a_file_is_filled_and_its_other_braces_stay(tmp_path):
    (tmp_path / "config.py.in").write_text("lr = {lr}\nx = {'a': 1}\nkeep = {other}\nout = '{trial_dir}'\n")
    args = parse_args(
        {"lr": {"type": "Real", "low": 0, "high": 1}, "config": {"type": "File", "template": "config.py.in"}},
        str(tmp_path / "hpo.yaml"),
    )
    check_template("run {config}", args, "hpo.yaml")
    made = render("run {config}", args, {"lr": 0.5, "config": "config.py.in"}, FIXED)
    assert made.words == ("run", "/tmp/t 7/config.py.in")
    assert made.files == {"config.py.in": "lr = 0.5\nx = {'a': 1}\nkeep = {other}\nout = '/tmp/t 7'\n"}


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("run {lrr} {lr}", r"task.template has the field \{lrr\}, and search_args no 'lrr'; did you mean 'lr'"),
        ("run", r"search_args has 'lr', and task.template no field \{lr\}; write \{lr\} where"),
        ("run {} {lr}", "a field without a name"),
        ("run {lr", "cannot read the fields"),
        ("run '{lr}", "cannot split"),
    ],
)
def test_fields_and_arguments_have_to_match(template, message):
    with pytest.raises(RecipeError, match=message):
        check_template(template, _args(lr=[1, 2]), "hpo.yaml")


def test_fields_of_branches_have_to_match():
    for branch, message in (
        ({"text": "--m {n}", "args": {"m": [1]}}, r"text has the field \{n\}, and its args no 'n'"),
        ({"text": "--m", "args": {"m": [1]}}, r"args has 'm', and its text no field \{m\}"),
    ):
        with pytest.raises(RecipeError, match=message):
            check_template("run {o}", _args(o={"type": "Nested", "options": {"a": branch}}), "hpo.yaml")
    with pytest.raises(RecipeError, match=r"the field \{trial\} is taken"):
        check_template("run {trial}", _args(trial=[1]), "hpo.yaml")
