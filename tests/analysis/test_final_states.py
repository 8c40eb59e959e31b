"""Names of the particles of a final state."""

from __future__ import annotations

from hepgen_ml.analysis.final_states import latex_of, name_of


def test_ids_that_the_numbering_does_not_have_are_named_by_their_number() -> None:
    assert (name_of(9940103), name_of(6)) == ("9940103", "t")
    assert "9940103" in latex_of(9940103)
