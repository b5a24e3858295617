"""Profiles: every shipped map equals its spreadsheet, the importer keeps what it reads, errors come all at once."""

import csv
from pathlib import Path

import pytest

from drivers import profile
from drivers.points import READ_CODES

REGISTERS = Path(__file__).parents[3] / "shared" / "registers"
needs_maps = pytest.mark.skipif(not REGISTERS.exists(), reason="needs ../shared/registers")


def facts(point):
    return (
        point.name,
        point.function,
        point.address,
        point.type,
        point.word_order,
        point.scale,
        point.offset,
        point.unit,
    )


@needs_maps
@pytest.mark.parametrize("name", profile.names())
def test_a_shipped_profile_says_what_its_spreadsheet_says(name):
    path = REGISTERS / f"{name}.csv"
    functions = {str(code): function for function, code in READ_CODES.items()}
    with path.open(newline="") as stream:
        wanted = [
            (
                row["name"], functions[row["function"]], int(row["address"]), row["type"], row["word_order"],
                float(row["scale"]), float(row["offset"]), "" if row["unit"] == "1" else row["unit"],
            )
            for row in csv.DictReader(stream)
        ]  # fmt: skip
    assert [facts(point) for point in profile.find(name).points] == wanted


@needs_maps
def test_every_spreadsheet_is_shipped():
    assert {path.stem for path in REGISTERS.glob("*.csv")} <= set(profile.names())


@needs_maps
@pytest.mark.parametrize("path", sorted(REGISTERS.glob("*.csv")), ids=lambda p: p.stem)
def test_the_importer_reads_back_what_it_wrote(path, tmp_path):
    out = tmp_path / f"{path.stem}.toml"
    enron = "enron" in path.stem or path.stem == "sick_flowsic600"
    out.write_text(profile.import_csv(path, {"vendor": "V", "enron": enron}))
    loaded = profile.load(out)
    with path.open(newline="") as stream:
        assert len(loaded.points) == len(list(csv.DictReader(stream)))
    again = tmp_path / "again.toml"
    model = profile.ProfileModel.model_validate(profile.read_toml(out))
    again.write_text(profile.dump(model))
    assert again.read_text() == out.read_text()


def test_text_survives_toml(tmp_path):
    source = tmp_path / "x.csv"
    source.write_text('name,function,address,type,description\na,3,0,uint16,"quote "" slash \\ tab\t end"\n')
    out = tmp_path / "x.toml"
    out.write_text(profile.import_csv(source, {}))
    assert profile.load(out).points[0].description == 'quote " slash \\ tab\t end'


def test_every_error_of_a_profile_at_once(tmp_path):
    path = tmp_path / "bad.toml"
    path.write_text(
        'vendor = "V"\nmodel = "M"\nsource = "s"\ngrade = "D"\nmax_register = 80\npoints = [\n'
        '  {name = "a", function = "input", address = 0, type = "float31"},\n'
        '  {name = "b", function = "input", address = -1, type = "uint16", scale = 0},\n'
        '  {name = "c", function = "coil", address = 1, type = "uint16"},\n'
        '  {name = "d", function = "holding", address = 1, type = "bool"},\n]\n'
    )
    with pytest.raises(profile.ProfileError) as caught:
        profile.load(path)
    text = "\n".join(caught.value.lines)
    for wanted in (
        "grade: got 'D', wanted 'A', 'B' or 'C'",
        "max_register: unknown key, did you mean 'max_registers'?",
        "point 'a': type: unknown type 'float31'",
        "point 'b': address: got -1",
        "point 'c': a coil is one bit",
        "point 'd': a bool inside a register needs 'bit'",
    ):
        assert wanted in text
    assert len(caught.value.lines) == 6


def test_points_that_contradict_each_other_are_refused(tmp_path):
    path = tmp_path / "bad.toml"
    path.write_text(
        'vendor = "V"\nmodel = "M"\nsource = "s"\ngrade = "C"\nside_effects = ["z"]\npoints = [\n'
        '  {name = "a", function = "input", address = 0, type = "float32"},\n'
        '  {name = "a", function = "input", address = 65535, type = "float32"},\n]\n'
    )
    with pytest.raises(profile.ProfileError) as caught:
        profile.load(path)
    for wanted in ("'a': given twice", "ends beyond 65535", "side_effects: no point 'z'"):
        assert wanted in str(caught.value)


def test_lint_questions_float_totals_and_units_left_open():
    notes = "\n".join(profile.lint(profile.find("janitza_umg96rm_b23")))
    assert "a float32 total stops resolving" in notes
    assert "its unit is a setting of the device" in "\n".join(profile.lint(profile.find("endresshauser_proline")))
