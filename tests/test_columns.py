"""What columns mean, in many languages and without a header; and numbers, held to what `phonenumbers` says of the same."""

from __future__ import annotations

import random

import phonenumbers
import pytest
from phonenumbers import PhoneNumberFormat
from phonenumbers.timezone import time_zones_for_number

from cti.numbers import Kind, read_caller
from dialer.call_lists import words
from dialer.call_lists.columns import field_key, guess
from dialer.call_lists.rows import Contact, ImportSettings, NumberReader, RowReader
from dialer.call_lists.sheets import Line
from dialer.call_lists.zones import Places

TABLES: dict[str, tuple[str, str, str, list[str]]] = {
    "en": ("GB", "First name;Surname;Mobile number;Country;Time zone;Customer no;Opt-in",
           "Ann;Lee;07911 123456;UK;Europe/London;C1;yes",
           ["first_name", "last_name", "phone", "country", "zone", "person", "data:consent"]),
    "de": ("DE", "Anrede;Vor- und Nachname;Tel. privat;Handy-Nr.;Telefax;PLZ;Bundesland;Sprache",
           "Herr;Jürgen Groß;030 1234567;0171 5550199;030 1234568;10115;Berlin;deutsch",
           ["data:title", "name", "phone", "phone", "data:fax", "data:postcode", "region", "language"]),
    "fr": ("FR", "Nom;Prénom;N° de téléphone;Portable;Code postal;Pays;Société",
           "Dupont;Anne;01 42 68 53 00;06 12 34 56 78;75001;France;Zed",
           ["last_name", "first_name", "phone", "phone", "data:postcode", "country", "data:company"]),
    "es": ("ES", "Nombre;Apellidos;Móvil;Teléfono fijo;Correo electrónico;Idioma;Provincia",
           "Ana;Gil;612 345 678;912 345 678;a@b.es;español;Madrid",
           ["first_name", "last_name", "phone", "phone", "data:email", "language", "region"]),
    "it": ("IT", "Cognome e nome;Cellulare;Codice cliente;Città;Fuso orario",
           "Rossi Gianni;347 1234567;K1;Roma;Europe/Rome",
           ["name", "phone", "person", "data:city", "zone"]),
    "pl": ("PL", "Imię i nazwisko;Telefon komórkowy;Kod pocztowy;Kraj;Województwo",
           "Jan Król;601 234 567;00-001;Polska;mazowieckie",
           ["name", "phone", "data:postcode", "country", "region"]),
    "nl": ("NL", "Voornaam;Achternaam;Telefoonnummer;Taal;Klantnummer;Prioriteit",
           "Jan;de Vries;06 12345678;Nederlands;12;5",
           ["first_name", "last_name", "phone", "language", "person", "priority"]),
    "pt": ("PT", "Nome;Telemóvel;Telefone;País;Idioma", "João Silva;912 345 678;21 123 4567;Portugal;pt",
           ["name", "phone", "phone", "country", "language"]),
    "cs": ("CZ", "Jméno;Příjmení;Telefonní číslo;Jazyk", "Jan;Novák;601 123 456;cs",
           ["first_name", "last_name", "phone", "language"]),
    "sv": ("SE", "Förnamn;Efternamn;Mobilnr;Språk", "Åsa;Öberg;070-123 45 67;sv",
           ["first_name", "last_name", "phone", "language"]),
    "tr": ("TR", "Adı;Soyadı;Cep telefonu;Ülke", "Ayşe;Yılmaz;0532 123 45 67;TR",
           ["first_name", "last_name", "phone", "country"]),
    "id": ("ID", "Nama;Nomor HP;Bahasa", "Budi;0812-3456-7890;id", ["name", "phone", "language"]),
    "vicidial": ("US", "phone_code;phone_number;first_name;last_name;state;postal_code;alt_phone",
                 "1;2125550123;John;Doe;NY;10001;3105550199",
                 ["country", "phone", "first_name", "last_name", "region", "data:postcode", "phone"]),
    "salesforce": ("US", "First Name;Last Name;Account Name;Phone;Mailing State/Province;Mailing Country",
                   "Ann;Lee;Acme;(212) 555-0123;CA;United States",
                   ["first_name", "last_name", "data:company", "phone", "region", "country"]),
    "area": ("DE", "Name;Vorwahl;Rufnummer;Mobil", "Groß;0731;1234567;0171 5550199", ["name", "area", "phone", "phone"]),
}  # fmt: skip


@pytest.mark.parametrize("language", TABLES)
def test_headers_are_understood(language: str) -> None:
    region, header, row, meant = TABLES[language]
    found = guess([header.split(";"), row.split(";")], region)
    assert (found.header, list(found.columns), found.sure) == (True, meant, True)


@pytest.mark.parametrize(
    ("region", "rows", "meant"),
    [
        ("GB", ["Ann Lee;+447911123456;ann@x.org;GB", "Bo Day;020 7946 0018;bo@x.org;GB"],
         ["name", "phone", "data:email", "country"]),
        ("GB", ["447911123456", "447911123457"], ["phone"]),
        ("DE", ["10034;Groß;030 1234567", "10035;Klein;0171/5550199"], ["data:column_1", "name", "phone"]),
        ("US", ["7/4/1990;(212) 555-0147;America/New_York"] * 3, ["data:column_1", "phone", "zone"]),
    ],
)  # fmt: skip
def test_a_table_without_a_header_is_understood(region: str, rows: list[str], meant: list[str]) -> None:
    found = guess([row.split(";") for row in rows], region)
    assert (found.header, list(found.columns)) == (False, meant)


def test_what_stands_in_a_column_counts_more_than_its_name() -> None:
    rows = [
        ["Ref", "Mobile", "Number", "Land"],
        *([f"R{n}", "yes", f"07911 12345{n}", f"{n} ha"] for n in range(6)),
    ]
    assert guess(rows, "GB").columns == ("person", "data:mobile", "phone", "data:land")
    words_for_people = [["Phone", "Priority"], *([f"020 7946 001{n}", "High"] for n in range(6))]
    assert guess(words_for_people, "GB").columns == ("phone", "data:priority")
    fax = [["Name", "Fax", "Phone"], ["A", "020 7946 0018", "020 7946 0019"]]
    assert guess(fax, "GB").columns == ("name", "data:fax", "phone")
    assert guess([["a", "b"], ["x", "y"]], "GB").sure is False
    assert guess([], "GB").columns == ()


def test_custom_fields_have_keys_of_their_own() -> None:
    found = guess(
        [["Phone", "Größe (cm)", "größe cm", "2. Wahl", ""], ["07911 123456", "1", "2", "3", "4"]], "GB"
    )
    assert found.columns == (
        "phone",
        "data:grosse_cm",
        "data:grosse_cm_2",
        "data:field_2_wahl",
        "data:column_5",
    )
    assert field_key("!") == "field"
    many = [["Phone", *(f"f{n}" for n in range(60))], ["07911 123456", *("x" for _ in range(60))]]
    assert sum(column.startswith("data:") for column in guess(many, "GB").columns) == 40


def test_words_for_countries_languages_and_states() -> None:
    for text in ("DE", "de", "Deutschland", "Allemagne", "Niemcy", "+49", "0049", "GER", "Duitsland"):
        assert words.country(text) == "DE"
    assert (
        words.country("Großbritannien") == words.country("U.K.") == words.country("Wielka Brytania") == "GB"
    )
    assert words.country("Atlantis") is None
    assert [words.language(t) for t in ("Français", "DE", "pt_br", "język", "Nederlands")] == [
        "fr",
        "de",
        "pt-BR",
        None,
        "nl",
    ]
    assert [words.state(t, "DE") for t in ("Bayern", "DE-BY", "by", "AT-9", "Narnia")] == [
        "BY",
        "BY",
        "BY",
        "",
        "",
    ]
    assert words.state("new york", "US") == "NY"
    assert all(words.key(header) == header for header in words.headers())


# ------------------------------------------------------------------------------------------------ numbers and places

REGIONS = (
    "GB",
    "DE",
    "FR",
    "US",
    "IT",
    "PL",
    "NL",
    "ES",
    "AR",
    "BR",
    "MX",
    "AU",
    "RU",
    "IN",
    "JP",
    "CN",
    "HU",
    "SM",
    "CA",
)


def some_numbers(region: str, count: int, rng: random.Random) -> list[str]:
    """Numbers around those that exist, of every kind, in E.164."""
    found: list[str] = []
    for kind in range(11):
        if (example := phonenumbers.example_number_for_type(region, kind)) is None:
            continue
        e164 = phonenumbers.format_number(example, PhoneNumberFormat.E164)
        for _ in range(count):
            kept = len(e164) - rng.randrange(9)
            found.append(e164[:kept] + "".join(rng.choice("0123456789") for _ in range(len(e164) - kept)))
    return found


@pytest.mark.parametrize("region", REGIONS)
def test_places_are_what_phonenumbers_says(region: str) -> None:
    places, rng = Places(), random.Random(region)
    for e164 in some_numbers(region, 8, rng):
        found = places.of(e164)
        try:
            number = phonenumbers.parse(e164, None)
        except phonenumbers.NumberParseException:
            assert not found.valid, e164
            continue
        if phonenumbers.format_number(number, PhoneNumberFormat.E164) != e164:
            assert not found.valid, e164
            continue
        assert found.valid == phonenumbers.is_valid_number(number), e164
        if found.valid:
            assert found.country == phonenumbers.region_code_for_number(number), e164
            assert found.zones == tuple(sorted(set(time_zones_for_number(number)) - {"Etc/Unknown"})), e164


@pytest.mark.parametrize("region", REGIONS[:6])
def test_numbers_are_read_as_callers_are(region: str) -> None:
    reader, rng = NumberReader(region), random.Random(region)
    for e164 in some_numbers(region, 2, rng):
        try:
            number = phonenumbers.parse(e164, None)
        except phonenumbers.NumberParseException:
            continue
        for how in (PhoneNumberFormat.E164, PhoneNumberFormat.INTERNATIONAL, PhoneNumberFormat.NATIONAL):
            text = phonenumbers.format_number(number, how)
            for written in (text, text.replace(" ", ""), "00" + e164[1:], text.lstrip("+")):
                caller = read_caller(written, region)
                expected = caller.e164 if caller.kind is Kind.IDENTIFIED and caller.valid else None
                found = reader.read(written, region)
                assert (found[0] if found else None) == expected, written


@pytest.mark.parametrize(
    "text", ["", " ", "+", "-", "٣", "+४४7911123456", "\x00", "'", "07911 12345六", "x" * 5000, "++44", "1e9"]
)
def test_nothing_that_stands_in_a_cell_stops_the_reader(text: str) -> None:
    NumberReader("GB").read_all(text, "GB")
    assert Places().of(text or "+").valid in (True, False)


@pytest.mark.parametrize(
    ("number", "state", "zones"),
    [
        ("212 555 0123", "NY", ("America/New_York",)),
        (
            "212 555 0123",
            "California",
            ("America/Los_Angeles", "America/New_York"),
        ),  # moved, and took the number along
        ("212 555 0123", "TX", ("America/Chicago", "America/Denver", "America/New_York")),
        ("212 555 0123", "Kent", ("America/New_York",)),
        ("+44 20 7946 0151", "NY", ("Europe/London",)),
    ],
)
def test_who_lives_in_another_state_is_called_in_the_hours_of_both(
    number: str, state: str, zones: tuple[str, ...]
) -> None:
    settings = ImportSettings(columns=["phone", "region"], country="US")
    found = RowReader(settings).read(Line(2, [number, state]))
    assert isinstance(found, Contact)
    assert found.group.zones == zones


@pytest.mark.parametrize(
    ("country", "area", "number", "e164"),
    [
        ("DE", "089", "123456", "+4989123456"),
        ("DE", "89", "12 34 56", "+4989123456"),
        ("DE", "089", "0171 5550199", "+491715550199"),
        ("DE", "+49 89", "123456", "+4989123456"),
        ("DE", "089", "89123456", "+4989123456"),
        ("DE", "", "089 123456", "+4989123456"),
        ("US", "212", "555-0123", "+12125550123"),
        ("US", "212", "310-555-0199", "+13105550199"),
    ],
)
def test_an_area_code_of_its_own_comes_before_the_number(
    country: str, area: str, number: str, e164: str
) -> None:
    settings = ImportSettings(columns=["data:shop", "phone", "area", "phone"], country=country)
    found = RowReader(settings).read(Line(2, ["Ulm", "", area, number]))
    assert isinstance(found, Contact)
    assert found.e164 == e164


def test_several_numbers_in_one_cell_are_all_read() -> None:
    reader = NumberReader("DE")
    for text in ("030 1234567 / 0171 5550199", "030 1234567; 0171 5550199", "030/1234567 oder 0171-5550199"):
        assert [e164 for e164, _ in reader.read_all(text, "DE")] == ["+49301234567", "+491715550199"]
    assert [e164 for e164, _ in reader.read_all("030/1234567", "DE")] == ["+49301234567"]
