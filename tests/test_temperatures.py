"""Contrasts with one temperature for both arms, by hand arithmetic."""

from dataclasses import replace

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from test_results import study

from lib.analysis import contrasts, drawing, forests, temperatures
from lib.analysis.answers import first_sentence

GAINS = {"mono": 0.0, "hybrid(0.5)": 0.05, "mix(0.5)": 0.03}
OTHERS = {
    "mono, temperature 0.06": 0.02,
    "hybrid(0.5), temperature 0.03": 0.04,
    "mix(0.5), temperature 0.06": 0.01,
}
FIRST = {"mono": 0.12, "hybrid(0.5)": 0.06, "mix(0.5)": 0.03}


def tempered(gains):
    """A made-up study whose arms without a temperature in their names have those of FIRST."""
    found = study(gains)
    runs = [
        replace(r, train=r.train.model_copy(update={"temperature": FIRST[r.arm]}))
        if r.arm in FIRST
        else r
        for r in found.runs
    ]
    return replace(found, runs=runs)


def test_one_temperature_for_both_by_hand():
    """hybrid(0.5) has .06 and .03, mono .12 and .06, mix(0.5) .03 and .06."""
    table = temperatures.contrasted(tempered(GAINS | OTHERS))
    found = table.set_index(["contrast", "at"])["difference"]
    over_mono = {"0.06 and 0.12": 0.05, "0.06 for both": 0.03}
    expected = dict.fromkeys(("mono cost", "cross gain", "multi gain"), over_mono)
    expected["batch effect"] = {"0.06 and 0.03": 0.02, "0.06 for both": 0.04, "0.03 for both": 0.01}
    flat = {(name, at): gap for name, own in expected.items() for at, gap in own.items()}
    assert found.to_dict() == pytest.approx(flat)
    assert list(table["contrast"].unique()) == list(temperatures.SHOWN)
    pairs = table.set_index(["contrast", "at"])[["arm", "versus"]]
    assert list(pairs.loc["batch effect", "0.03 for both"]) == [
        "hybrid(0.5), temperature 0.03",
        "mix(0.5)",
    ]


def test_a_contrast_without_a_common_temperature_is_left_out():
    """mono has .12 alone: what hybrid(0.5) is at .06 and .03 is of no one temperature."""
    gains = {arm: gain for arm, gain in (GAINS | OTHERS).items() if arm[:6] != "mono, "}
    table = temperatures.contrasted(tempered(gains))
    assert set(table["contrast"]) == {"batch effect"}


def test_p_values_are_adjusted_over_all_rows():
    """As many as there are: the least is their number times its own."""
    table = temperatures.contrasted(tempered(GAINS | OTHERS))
    least = table.loc[table["p"].idxmin()]
    assert least["p_holm"] == pytest.approx(min(1, len(table) * least["p"]))


def test_hybrid_at_one_temperature_is_no_such_study():
    """Arms of other temperatures alone do not make one: they stand in `others`."""
    gains = {arm: gain for arm, gain in (GAINS | OTHERS).items() if arm[:13] != "hybrid(0.5), "}
    table = temperatures.contrasted(tempered(gains))
    assert table.empty and not forests.temperatures(table).panels
    assert temperatures.shown(table).empty and temperatures.answer(table) == ""


def test_a_tempered_hybrid_stands_against_itself_once():
    """Less the same batches, and not the other way round as well."""
    table = contrasts.others(tempered(GAINS | OTHERS))
    pairs = set(zip(table["arm"], table["versus"], strict=True))
    own = ("hybrid(0.5), temperature 0.03", "hybrid(0.5)")
    assert own in pairs and own[::-1] not in pairs
    assert ("hybrid(0.5)", "mono, temperature 0.06") in pairs


def test_sentence_table_and_figure_name_temperatures():
    """Of what was measured alone; the rival is named, whatever its temperature."""
    drawing.style()
    table = temperatures.contrasted(tempered(GAINS | OTHERS))
    none = pd.DataFrame()
    said = first_sentence(none, none, table, none, none, none, "")
    assert said.startswith("Within a language, hybrid(0.5) against mono **gains 0.050 ")
    assert (
        " at temperature 0.06 and 0.12**; **gains 0.030 " in said
        and " at temperature 0.06 for both**." in said
    )
    assert "Over the settings' mean, hybrid(0.5) against mix(0.5) **gains 0.020 " in said
    shown = temperatures.shown(table)
    assert list(shown["temperature"])[:2] == ["0.06 and 0.12", "0.06 for both"]
    assert shown["difference in mAP"].iloc[0].startswith("+0.050 [")
    figure = forests.temperatures(table)
    assert "mono cost at 0.06 for both: hybrid(0.5) is 0.030 higher than mono, temp" in str(
        figure.alts
    )
    plt.close("all")
