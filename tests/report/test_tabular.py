import csv
import io
import re

from hypothesis import given
from hypothesis import strategies as st

from shoestring.report.tabular import (
    Column,
    Estimate,
    Table,
    csv_text,
    escape_latex,
    escape_markdown,
    html_text,
    latex_text,
    markdown_text,
    one_line,
    plain_text,
)

COLUMNS = (Column("case", "Case"), Column("ttft_s", "TTFT (ms)", 1e3, estimate=True))
TABLE = Table(
    "t", "A title", COLUMNS,
    (("a_b & c|d", Estimate(0.5, 0.4, 0.6)), ("none", Estimate(None, None, None))),
)  # fmt: skip
UNESCAPED = {
    r"\textbackslash{}": "\\", r"\{": "{", r"\}": "}", r"\$": "$", r"\&": "&", r"\#": "#",
    r"\_": "_", r"\%": "%", r"\textasciicircum{}": "^", r"\textasciitilde{}": "~",
    r"\textless{}": "<", r"\textgreater{}": ">", r"\textbar{}": "|", r"\symbol{34}": '"',
    "{[}": "[", "{]}": "]", "{*}": "*", "{-}": "-",
}  # fmt: skip


@given(st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126)))
def test_latex_sets_any_text_as_it_is(text):
    """What is escaped reads back as the same text, and no bare special character is left."""
    escaped = escape_latex(text)
    pattern = "|".join(re.escape(code) for code in sorted(UNESCAPED, key=len, reverse=True))

    assert re.sub(pattern, lambda match: UNESCAPED[match[0]], escaped) == text
    assert not re.search(r"[$&#_%^~<>|\"]", re.sub(pattern, "", escaped))


@given(st.text())
def test_markdown_cells_stay_cells(text):
    """No text breaks a pipe table: it stays on one line and every pipe is escaped."""
    escaped = escape_markdown(text)

    assert len(escaped.splitlines()) <= 1
    assert not re.search(r"(?<!\\)(\\\\)*\|", escaped)


@given(st.lists(st.tuples(st.text(), st.floats(allow_nan=False, allow_infinity=False))))
def test_csv_reads_back(rows):
    """CSV gives back the texts on one line, and the numbers to six significant digits."""
    table = Table("t", "t", (Column("name", "Name"), Column("x", "X")), tuple(rows))

    read = list(csv.reader(io.StringIO(csv_text(table), newline="")))[1:]

    assert [one_line(name) for name, _ in rows] == [name for name, _ in read]
    for (_, expected), (_, text) in zip(rows, read, strict=True):
        assert abs(float(text) - expected) <= 1e-5 * abs(expected)


def test_missing_is_empty_in_csv_and_a_dash_for_readers():
    """Null is an empty field for programs, an em dash for people, and never zero."""
    assert csv_text(TABLE).splitlines()[2] == "none,,,"
    assert "| none | — |" in markdown_text(TABLE)
    assert r"none & --- \\" in latex_text(TABLE)


def test_readers_see_the_unit_of_the_heading():
    """Seconds are stored, milliseconds are shown, the interval stands behind its median."""
    assert "ttft_s,ttft_s_ci95_low,ttft_s_ci95_high" in csv_text(TABLE)
    assert "0.5,0.4,0.6" in csv_text(TABLE)
    assert r"500 \[400, 600\]" in markdown_text(TABLE)
    assert r"a\_b \& c\textbar{}d & 500 {[}400, 600{]} \\" in latex_text(TABLE)


def test_html_escapes_and_scrolls():
    """A cell cannot carry markup, and a wide table scrolls in its own region."""
    table = Table("t", "t", (Column("case", "Case"),), (("<script>",),))

    assert "&lt;script&gt;" in html_text(table)
    assert '<div class="scroll" tabindex="0"' in html_text(table)


def test_hyphens_and_quotes_are_set_as_typed():
    """An option such as --threads keeps its hyphens, and an em dash stays one."""
    assert escape_latex('--threads "2" a-b') == r"{-}{-}threads \symbol{34}2\symbol{34} a-b"
    assert escape_latex("—") == "---"


def test_no_format_holds_what_cannot_be_written():
    """Half a character and a terminal's escape, as a server may send them, become spaces."""
    table = Table("t", "t", (Column("said", "Said"),), (("a\ud800b\x1b[31mc",),))

    for write in (csv_text, markdown_text, latex_text, html_text, plain_text):
        text = write(table)
        assert "\ud800" not in text
        assert "\x1b" not in text


def test_an_empty_table_says_so():
    """A table without rows says what that means in every format for readers."""
    table = Table("t", "t", COLUMNS, (), "No request failed.")

    assert markdown_text(table) == "No request failed.\n"
    assert "No request failed." in html_text(table)
    assert r"\multicolumn{2}{l}{No request failed.}" in latex_text(table)
