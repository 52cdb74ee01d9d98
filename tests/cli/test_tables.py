from skspec.cli._tables import plain_table, rich_table
from skspec.diagnostics import TextTable


def test_rich_shows_what_plain_shows(capsys):
    table = TextTable("teff", ["method", "bias"], [["A", "1.0"], ["B", "2.0"]], {(0, 1)})
    plain_table(table, "teff")
    plain = capsys.readouterr().out
    rich_table(table, "teff")
    assert capsys.readouterr().out.split() == plain.split()
