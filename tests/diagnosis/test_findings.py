"""Findings read as one line, what failed first."""

from skbi.diagnosis.findings import Finding, describe_p, in_order


def test_what_failed_comes_first_and_what_was_not_checked_last():
    findings = [Finding("a", None, "x"), Finding("b", True, "y"), Finding("c", False, "z", "Do.")]
    assert [f.check for f in in_order(findings)] == ["c", "b", "a"]


def test_a_line_has_verdict_and_remedy_where_one_is_needed():
    assert str(Finding("loss", False, "falling", "Raise max_iter.")) == (
        "[!!] loss: falling. Raise max_iter."
    )
    assert str(Finding("loss", True, "flat", "Raise max_iter.")) == "[ok] loss: flat."
    assert str(Finding("loss", None, "unknown")) == "[--] loss: unknown."


def test_tiny_p_values_are_bounded():
    assert describe_p(0.0123) == "p = 0.012"
    assert describe_p(0.0) == "p < 1e-10"
