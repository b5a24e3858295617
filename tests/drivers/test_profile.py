"""Profiles: every shipped map equals its spreadsheet, the importer keeps what it reads, errors come all at once."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from drivers import profile
from drivers.points import READ_CODES, Expected, Hole, ScanList

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
        "point 'b': scale 0 makes every value 0",
        "point 'c': a coil is one bit",
        "point 'd': a bool inside a register needs 'bit'",
    ):
        assert wanted in text
    assert len(caught.value.lines) == 7


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


PROFILE = 'vendor = "V"\nmodel = "M"\nsource = "s"\ngrade = "C"\n'


def faults(tmp_path, text):
    """Return what is told about a profile, without the path."""
    path = tmp_path / "x.toml"
    path.write_text(PROFILE + text)
    try:
        profile.load(path)
    except profile.ProfileError as error:
        return [line.removeprefix(f"{path}: ") for line in error.lines]
    return []


@pytest.mark.parametrize(
    ("more", "wanted"),
    [
        ("sentinels = [65535, 0]", None),
        ("sentinels = [65536]", "sentinels: 65536 is no raw uint16, wanted 0 to 65535"),
        ("sentinels = [-1]", "sentinels: -1 is no raw uint16, wanted 0 to 65535"),
        ('type = "int16", sentinels = [-32768, 0xffff]', None),
        ('type = "int16", sentinels = [0x7fc00000]', "sentinels: 2143289344 is no raw int16, wanted -32768 to 65535"),
        ('type = "int8_low", sentinels = [0x100]', "sentinels: 256 is no raw int8_low, wanted -128 to 255"),
        ('type = "float32", sentinels = [0x7fc00000]', None),
        ('type = "uint64", sentinels = [0xffffffffffffffff]', None),
        ('type = "bool", bit = 3, sentinels = [0xffff]', None),
        ('type = "string4", sentinels = [1]', "'sentinels' has no meaning for a text"),
        ('function = "coil", type = "bool", sentinels = [3]', "a coil is one bit: 'sentinels' has no meaning"),
        ('function = "discrete", type = "bool", bit = 3', "a discrete is one bit: 'bit' has no meaning"),
        ("sentinels = [true]", "sentinel #1: got true, wanted a whole number"),
        ("range = [nan, 1]", "range #1: got nan, wanted a finite number"),
        ("range = [0, inf]", "range #2: got inf, wanted a finite number"),
        ("range = [0, 1, 2]", "range: got 3 items, wanted at most 2"),
        ('scale = "0.1"', "scale: got '0.1', wanted a number"),
        ("scale = 2", None),
        (f"type = 0x{'f' * 5000}", "type: got a number of 20000 bits, wanted a text in quotes"),
        (f"kind = 0x{'f' * 5000}", "kind: got a number of 20000 bits, wanted 'gauge', 'counter' or 'state'"),
        ("address = true", "address: got true, wanted a whole number"),
        ("address = 1.0", "address: got 1.0, wanted a whole number"),
        ("period_s = 1e300", "period_s: got 1e+300, wanted less than or equal to 86400"),
        ('kind = "counter", max_rate = inf', "max_rate: got inf, wanted a finite number"),
        ('kind = "counter", type = "float32", rate = "b"', "rate and rate_s go together"),
        ('kind = "counter", type = "float32", rate_s = 3600', "rate and rate_s go together"),
        ('kind = "counter", rate = "b", rate_s = 1', 'rate goes with kind = "counter" and type = "float32"'),
        ('type = "float32", rate = "b", rate_s = 1', 'rate goes with kind = "counter" and type = "float32"'),
        ('kind = "counter", type = "float32", rate = "b", rate_s = 0', "rate_s: got 0, wanted greater than 0"),
        ('unit = "m³/h"', "unit: got 'm³/h', wanted ASCII, as in degC or m3/h"),
        ('unit = "a\\nb"', r"unit: got 'a\nb', wanted ASCII, as in degC or m3/h"),
    ],
)
def test_a_point_that_cannot_be_meant_is_one_line(tmp_path, more, wanted):
    keys = [key.split(" = ")[0] for key in more.split(", ") if " = " in key]
    given = {"name": '"a"', "function": '"input"', "address": "0", "type": '"uint16"'}
    known = ", ".join(f"{key} = {value}" for key, value in given.items() if key not in keys)
    other = '{name = "b", function = "input", address = 8, type = "int16"}'
    found = faults(tmp_path, f"points = [{{{known}, {more}}}, {other}]\n")
    assert found == ([f"point 'a': {wanted}"] if wanted else [])


TOTAL = (
    "points = [\n"
    '  {name = "energy", function = "input", address = 0, type = "float32", kind = "counter", unit = "Wh",'
    ' rate = "power", rate_s = 3600},\n'
    '  {name = "power", function = "input", address = 2, type = "float32", unit = "W"},\n'
    '  {name = "serial", function = "input", address = 4, type = "string4"},\n]\n'
)


@pytest.mark.parametrize(
    ("rate", "wanted"),
    [
        ("power", None),
        ("powr", "no point 'powr'; did you mean 'power'?"),
        ("energi", "no point 'energi'"),
        ("energy", "'energy' is a counter, wanted a number that is no counter"),
        ("serial", "'serial' is a string4, wanted a number that is no counter"),
    ],
)
def test_the_rate_of_a_total_is_a_number_of_the_same_meter(tmp_path, rate, wanted):
    found = faults(tmp_path, TOTAL.replace('"power", rate_s', f'"{rate}", rate_s'))
    assert found == ([f"point 'energy': rate: {wanted}"] if wanted else [])


def test_a_rate_survives_export_and_answers_what_lint_questions(tmp_path):
    assert faults(tmp_path, TOTAL) == []
    found = profile.load(tmp_path / "x.toml")
    assert (found.points[0].rate, found.points[0].rate_s) == ("power", 3600.0)
    assert profile.lint(found) == []
    (note,) = profile.lint(replace(found, points=(replace(found.points[0], rate=None, rate_s=None),)))
    assert "rate and rate_s" in note
    out = tmp_path / "x.toml"
    out.write_text(profile.export(found, [], 125, 2000))
    assert profile.load(out) == found


def test_no_shipped_profile_asks_for_an_estimate():
    assert not [p.name for name in profile.names() for p in profile.find(name).points if p.rate or p.rate_s]


@pytest.mark.parametrize("name", profile.RESERVED)
def test_a_point_is_not_called_what_its_series_says_already(tmp_path, name):
    (line,) = faults(tmp_path, f'points = [{{name = "{name}", function = "input", address = 0, type = "int16"}}]\n')
    assert line.startswith(f"point '{name}': name: got '{name}', wanted another name")


def test_faults_between_points_are_lines_of_their_own_beside_those_within(tmp_path):
    text = (
        'enron = 1\nside_effects = ["b"]\npoints = [\n'
        '  {name = "a", function = "input", address = 65535, type = "uint32"},\n'
        '  {name = "a", function = "input", address = 65535, type = "uint64", scale = true},\n]\n'
    )
    assert faults(tmp_path, text) == [
        "enron: got 1, wanted true or false",
        "point 'a': scale: got true, wanted a number",
        "point 'a': given twice (points 1 and 2)",
        "point 'a': address 65535 + 4 registers ends beyond 65535",
        "side_effects: no point 'b'",
    ]


def test_a_profile_that_is_there_but_cannot_be_read_is_not_passed_over(tmp_path, monkeypatch):
    (tmp_path / "eastron_sdm120.toml").mkdir()
    with pytest.raises(profile.ProfileError, match="cannot be read: Is a directory"):
        profile.find("eastron_sdm120", [tmp_path])
    (tmp_path / "mine.toml").symlink_to(tmp_path / "gone")
    with pytest.raises(profile.ProfileError, match="cannot be read: No such file"):
        profile.find("mine", [tmp_path])

    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "lstat", refuse)
    with pytest.raises(profile.ProfileError, match="cannot be read: Permission denied"):
        profile.find("mine", [tmp_path])


HEAD = "name,function,address,type,word_order,scale,offset,unit,description"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (f"{HEAD}\nv,3,10,int16,big,1,5,0,V,desc\n", ["line 2: has more cells than the first line has columns"]),
        (f'{HEAD}\nv,3,10,int16,big,"1,5",0,V,desc\n', ["line 2: scale: got '1,5', wanted a number"]),
        (f"{HEAD}\nv,3,10,int16,big,nan,0,V,desc\n", ["line 2: scale: got nan, wanted a finite number"]),
        (
            f"{HEAD}\nv,5,x,int17,big,1,0,V,desc\n",
            [
                "line 2: function: got '5', wanted 1, 2, 3, 4, coil, discrete, holding or input",
                "line 2: address: got 'x', wanted a number from 0 to 65535",
                "line 2: type: unknown type 'int17'",
            ],
        ),
        (f"{HEAD}\nv,3,1,int16\n\nv,3,65536,int16\n", ["line 4: address: got 65536", "point 'v': given twice"]),
        (f"{HEAD},byte_order\nv,3,10,int16,big,1,0,V,d,little\n", ["line 1: unknown column 'byte_order', wanted name"]),
        (f"{HEAD},unit\nv,3,10,int16,big,1,0,V,d,A\n", ["line 1: column 'unit' is given 2 times, wanted one"]),
        ("name,function,adress\nv,3,10\n", ["line 1: no column address, type", "line 1: unknown column 'adress'"]),
        (f"{HEAD}\n", ["points: is empty"]),
    ],
)
def test_what_a_spreadsheet_cannot_mean_is_told(tmp_path, text, wanted):
    path = tmp_path / "x.csv"
    path.write_text(text)
    with pytest.raises(profile.ProfileError) as caught:
        profile.import_csv(path, {})
    assert len(caught.value.lines) == len(wanted), caught.value.lines
    for line, part in zip(caught.value.lines, wanted, strict=True):
        assert line.startswith(f"{path}: {part}")


def test_columns_that_a_spreadsheet_program_leaves_empty_are_no_surplus(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text(f"{HEAD},,\nv,3,0x10,int16,,,,1,,,\n")
    out = tmp_path / "x.toml"
    out.write_text(profile.import_csv(path, {}))
    (point,) = profile.load(out).points
    assert (point.address, point.scale, point.unit, point.word_order) == (16, 1.0, "", "big")


def test_any_character_survives_toml(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("name,function,address,type\nv,3,0,int16\n")
    out = tmp_path / "x.toml"
    model = "a\x7fb\x00\u2028\U0001f600é\n"
    out.write_text(profile.import_csv(path, {"model": model, "vendor": "V\udcff"}))
    loaded = profile.load(out)
    assert (loaded.model, loaded.vendor) == (model, "V?")


def test_lint_questions_float_totals_and_units_left_open():
    notes = "\n".join(profile.lint(profile.find("janitza_umg96rm_b23")))
    assert "a float32 total stops resolving" in notes
    assert "its unit is a setting of the device" in "\n".join(profile.lint(profile.find("endresshauser_proline")))


HOLES = (
    'holes = [{function = "holding", start = 3, count = 2}]\npoints = [\n'
    '  {name = "a", function = "holding", address = 2, type = "uint32"},\n'
    '  {name = "b", function = "input", address = 3, type = "uint16"},\n]\n'
)


def test_lint_names_points_that_a_hole_keeps_from_being_read(tmp_path):
    assert faults(tmp_path, HOLES) == []
    found = profile.load(tmp_path / "x.toml")
    assert found.holes == (Hole("holding", 3, 2),)
    assert profile.lint(found) == ["point 'a': lies in a hole and is never read"]


def test_a_hole_that_cannot_be_meant_is_a_line(tmp_path):
    (line,) = faults(tmp_path, HOLES.replace("start = 3, count = 2", "start = 65535, count = 2"))
    assert line.endswith("start 65535 + 2 ends beyond 65535")
    assert len(faults(tmp_path, HOLES.replace("start = 3, count = 2", 'start = -1, count = 0, why = "x"'))) == 3


def test_an_exported_profile_says_what_it_said_and_what_was_learnt(tmp_path):
    found = profile.find("lambrecht_pro_modbus")
    out = tmp_path / f"{found.name}.toml"
    out.write_text(profile.export(found, [Hole("input", 30001, 1)], 60, 2000))
    assert profile.load(out) == replace(found, holes=(Hole("input", 30001, 1),), max_registers=60)
    out.write_text(profile.export(profile.load(out), [Hole("input", 7, 2), Hole("input", 30001, 1)], 125, 99))
    again = profile.load(out)
    assert (again.max_registers, again.max_bits) == (60, 99)
    assert again.holes == (Hole("input", 7, 2), Hole("input", 30001, 1))


@pytest.mark.parametrize("name", profile.names())
def test_a_profile_without_lessons_is_exported_as_it_is(name, tmp_path):
    found = profile.find(name)
    out = tmp_path / f"{name}.toml"
    out.write_text(profile.export(found, [], found.max_registers, found.max_bits))
    assert profile.load(out) == found


def test_what_may_fall_is_no_counter(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text("name,function,address,type,unit\nenergy_net,3,0,int64,Wh\nenergy_import,3,4,int64,Wh\n")
    assert ["counter" in line for line in profile.import_csv(path, {}).splitlines() if "energy_" in line] == [
        False,
        True,
    ]
    shipped = [point for name in profile.names() for point in profile.find(name).points]
    assert not [
        p.name for p in shipped if p.kind == "counter" and ("net" in p.name.split("_") or "can fall" in p.description)
    ]


EXPECT = (
    'side_effects = ["peak"]\nholes = [{function = "holding", start = 50, count = 2}]\nexpect = [%s]\npoints = [\n'
    '  {name = "code", function = "holding", address = 2, type = "uint16", scale = 0.5},\n'
    '  {name = "model", function = "holding", address = 3, type = "string12"},\n'
    '  {name = "peak", function = "holding", address = 20, type = "uint16"},\n'
    '  {name = "lost", function = "holding", address = 50, type = "uint16"},\n]\n'
)


@pytest.mark.parametrize(
    ("expect", "wanted"),
    [
        ('{point = "code", values = [7, 8.5]}, {point = "model", texts = ["PM51*", "PM5?"]}', []),
        ('{point = "cod", values = [7]}', ["expect: no point 'cod'; did you mean 'code'?"]),
        ('{point = "code"}', ["expect #1: wants either 'values' or 'texts'"]),
        ('{point = "code", values = [7], texts = ["7"]}', ["expect #1: wants either 'values' or 'texts'"]),
        ('{point = "code", values = ["7"]}', ["expect #1: value #1: got '7', wanted a number"]),
        ('{point = "code", texts = ["7"]}', ["expect: point 'code': is a number, wanted 'values', got 'texts'"]),
        ('{point = "model", values = [7]}', ["expect: point 'model': is a text, wanted 'texts', got 'values'"]),
        (
            '{point = "code", values = [7.2, 40000]}',
            [
                "expect: point 'code': values: got 7.2, wanted what it can show; the nearest is 7",
                "expect: point 'code': values: got 40000, wanted what it can show; the nearest is 32767.5",
            ],
        ),
        (
            '{point = "code", values = [7]}, {point = "code", values = [8]}',
            ["expect: point 'code' is given twice, wanted all its values in one"],
        ),
        (
            '{point = "model", texts = ["", "*", "?*", "PM51*", "[A", "[P]M", "PM", " PM", "é", "PM51-1234567X"]}',
            [
                "expect: point 'model': texts: got '', which a meter without a text meets too",
                "expect: point 'model': texts: got '*', which a meter without a text meets too",
                "expect: point 'model': texts: got ' PM', wanted what it can show; the nearest is 'PM'",
                "expect: point 'model': texts: got 'é', wanted what it can show; the nearest is '?'",
                "expect: point 'model': texts: got 'PM51-1234567X', "
                "wanted what it can show; the nearest is 'PM51-1234567'",
            ],
        ),
        ('{point = "peak", values = [7]}', ["expect: point 'peak' changes the device when it is read, wanted another"]),
        ('{point = "lost", values = [7]}', ["expect: point 'lost' lies in a hole and is never read, wanted another"]),
        (
            '{point = "code", value = [7]}',
            ["expect #1: value: unknown key, did you mean 'values'?", "expect #1: wants either 'values' or 'texts'"],
        ),
    ],
)
def test_an_expectation_that_no_meter_can_meet_is_a_line(tmp_path, expect, wanted):
    assert faults(tmp_path, EXPECT % expect) == wanted


def test_what_a_profile_expects_survives_export_and_import(tmp_path):
    found = profile.find("carlogavazzi_em24_e1")
    assert found.expect == (Expected("model_code", (1648.0, 1649.0, 1650.0, 1651.0, 1652.0, 1653.0)),)
    out = tmp_path / f"{found.name}.toml"
    out.write_text(profile.export(found, [], 125, 2000))
    assert profile.load(out) == found
    source = tmp_path / "x.csv"
    source.write_text("name,function,address,type\nmodel,3,0,string12\n")
    about = {"expect": [{"point": "model", "texts": ["PM51*", 'quote "']}]}
    (tmp_path / "x.toml").write_text(profile.import_csv(source, about))
    assert profile.load(tmp_path / "x.toml").expect == (Expected("model", texts=("PM51*", 'quote "')),)
    about["expect"][0]["point"] = "mode"
    with pytest.raises(profile.ProfileError, match="expect: no point 'mode'; did you mean 'model'"):
        profile.import_csv(source, about)


@pytest.mark.parametrize(
    ("expected", "words"),
    [
        (Expected("p", (1648.0, 1649.0, 1650.0)), "1648 to 1650"),
        (Expected("p", (7.0, 8.0)), "7 or 8"),
        (Expected("p", (7.0, 9.0, 8.0)), "7 or 9 or 8"),
        (Expected("p", (0.5,)), "0.5"),
        (Expected("p", texts=("PM51*", "PM53*")), "'PM51*' or 'PM53*'"),
    ],
)
def test_what_is_expected_reads_like_a_sentence(expected, words):
    assert str(expected) == words


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ('function = "holding", start = 5000, count = 16, values = 5050, step = 2, base = 1', []),
        ('function = "input", start = 100, count = 16, values = 68, step = 2', []),
        ('function = "coil", start = 0, count = 1, values = 9, step = 2', ["function: got 'coil', wanted"]),
        ('function = "input", start = 0, count = 126, values = 200, step = 2', ["count: got 126, wanted"]),
        ('function = "input", start = 0, count = 4, values = 65530, step = 2', ["ends at 65537, beyond 65535"]),
        (
            'function = "input", start = 100, count = 16, values = 115, step = 2',
            ["the list (100 to 115) and its values (115 to 146) overlap"],
        ),
        (
            'function = "input", start = 100, count = 16, values = 69, step = 2',
            ["the list (100 to 115) and its values"],
        ),
        ('function = "input", start = 100', ["count: is missing", "values: is missing", "step: is missing"]),
    ],
)
def test_a_scan_list_that_no_meter_can_have_is_told(tmp_path, given, wanted):
    point = '{name = "a", function = "input", address = 0, type = "uint16"}'
    found = faults(tmp_path, f"scan_list = {{{given}}}\npoints = [{point}]\n")
    assert len(found) == len(wanted)
    for line, part in zip(found, wanted, strict=True):
        assert line.startswith(f"scan_list: {part}")


def test_a_scan_list_survives_export(tmp_path):
    found = profile.find("endresshauser_proline")
    assert found.scan_list == ScanList("holding", 5000, 16, 5050, 2, 1)
    out = tmp_path / f"{found.name}.toml"
    out.write_text(profile.export(found, [], 125, 2000))
    assert profile.load(out) == found
