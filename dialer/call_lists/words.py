"""Words of spreadsheets in our customers' languages: what headers, countries, languages, states are called. Data only.

Keys are as `key` makes them: no accents, lower case, words apart by one space.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache, lru_cache

import phonenumbers

_MARKS = str.maketrans({"ł": "l", "Ł": "l", "ß": "ss", "ø": "o", "æ": "ae", "œ": "oe", "đ": "d", "ı": "i"})


@lru_cache(maxsize=4096)
def key(text: str) -> str:
    """A text as these tables are looked up by; letters of other scripts stay as they are."""
    flat = unicodedata.normalize("NFKD", text.translate(_MARKS).casefold())
    bare = "".join(c for c in flat if not unicodedata.combining(c))
    return " ".join(re.sub(r"[\W_]+", " ", bare).split())


HEADERS: dict[str, str] = {
    "phone": """phone|phone number|phonenumber|phone no|telephone|telephone number|tel|tel no|tel number
|number to call
        |contact number|contact phone|landline|home phone|work phone|phone 1|phone 2|phone 3|phone1|phone2
        |e164|msisdn|dial|ani
        |mobile|mobile phone|mobile number|mobile no|cell|cell phone|cellphone|cell number|cellular|gsm|mob
        |phone mobile
        |telefon|telefonnummer|telefonnr|telefon nr|rufnummer|festnetz|festnetznummer|handy|handynummer
        |handynr|handy nr|mobil
        |mobilnummer|mobilfunk|mobiltelefon|mobilfunknummer|tel nr|telnr|fon|telefon privat
        |telefon geschaftlich|telefon 1
        |telefon 2|tel privat|tel geschaftlich|tel gesch|telefon mobil|telefon dienstlich|rufnr|durchwahl
        |numero de telephone|num tel|n tel|no tel|no de telephone|portable|tel portable|telephone portable
        |telephone mobile
        |telephone fixe|fixe|tel fixe|numero|tel domicile|tel bureau|tel mobile|numero de tel|numero tel
        |telefono|numero de telefono|num telefono|movil|telefono movil|telefono fijo|fijo|celular|tlf|tfno
        |tlfno|tel movil
        |numero di telefono|numero telefono|cellulare|cell numero|telefono cellulare|telefono fisso|fisso|recapito
        |recapito telefonico|n telefono|num cellulare|numero cellulare
        |numer telefonu|nr telefonu|nr tel|komorka|telefon komorkowy|tel kom|tel komorkowy|numer|numer tel
        |telefon stacjonarny
        |tel stacjonarny|kom|nr komorkowy
        |telefoon|telefoonnummer|telefoonnr|mobiel|mobiel nummer|mobiele telefoon|mobielnummer|06 nummer
        |vaste telefoon
        |vast nummer|gsm nummer|telefoon mobiel|telefoon vast|telefoon werk|telefoon prive
        |telefone|numero de telefone|telemovel|celular|telefone fixo|telefone movel|n telefone|num telemovel
        |contato telefonico
        |telefonni cislo|cislo telefonu|telefonni|mobilni telefon|mobilni cislo|pevna linka|telefonszam|mobilszam
        |telefonnummer|telefonnr|mobiltelefon|mobilnr|tlf nr|telefon nummer
        |nomor telepon|nomor hp|no hp|no telepon|no telp|telepon|hp|handphone|nomor handphone|no handphone|nomor ponsel
        |natel|telefon numarasi|cep telefonu|alt phone|alternate phone|other phone|daytime phone|evening phone""",
    "area": """area code|areacode|phone area code|std code|std|vorwahl|ortsvorwahl|ortskennzahl|vorwahlnummer
        |indicatif regional
        |prefijo|prefisso|numer kierunkowy|kierunkowy|netnummer|kengetal|ddd|predcislo|riktnummer|kode area""",
    "name": """name|full name|fullname|contact|contact name|contact person|customer|customer name|client
|client name|lead
        |lead name|person|kunde|kundenname|ansprechpartner|kontakt|kontaktperson
        |vollstandiger name|vor und nachname
        |vorname nachname|nom complet|nom et prenom|nom prenom|contact principal|interlocuteur|nombre completo
        |nombre y apellidos|nombre y apellido|cliente|contacto|persona de contacto|nominativo|nome completo
        |nome e cognome
        |cognome e nome|referente|contatto|imie i nazwisko|nazwisko i imie|klient|kontrahent|osoba kontaktowa
        |nazwa klienta
        |naam|volledige naam|klant|klantnaam|contactpersoon
        |nome completo|cliente|contato|cele jmeno|jmeno a prijmeni|zakaznik|navn|fulde navn|kunde navn|namn|kundnamn|nev
        |teljes nev
        |nama|nama lengkap|nama pelanggan|pelanggan|ad soyad|adi soyadi|musteri""",
    "first_name": """first name|firstname|forename|given name|givenname|vorname|rufname|prenom|nombre
|nombre de pila|nome|imie
        |voornaam|roepnaam|first|primeiro nome|jmeno|krestni jmeno|fornavn|fornamn|nama depan|keresztnev|adi""",
    "last_name": """last name|lastname|surname|family name|familyname|nachname|familienname|zuname|nom|nom de famille
        |apellido|apellidos|primer apellido|cognome|nazwisko|achternaam|familienaam|last
        |sobrenome|apelido|ultimo nome|prijmeni|efternavn|etternavn|efternamn|nama belakang|vezeteknev|soyadi|soyad""",
    "person": """customer id|customer number|customer no|customerid|account|account id|account number
|account no|client id
        |client number|contact id|person id|personid|id|crm id|reference|ref|external id|kundennummer
        |kundennr|kunden nr|kdnr
        |kd nr|kunden id|personennummer|debitor|debitorennummer|mitgliedsnummer|numero client|n client
        |no client|code client
        |id client|reference client|numero de cliente|num cliente|id cliente|codigo cliente|codigo de cliente
        |numero cliente|codice cliente|n cliente|numer klienta|nr klienta|id klienta|kod klienta|numer kontrahenta
        |klantnummer|klantnr|klant id|relatienummer|debiteurnummer|member id|membership number""",
    "country": """country|country code|countrycode|nation|iso country|land|landercode|landerkennzeichen|lkz|staat|pays
        |code pays|pais|codigo pais|paese|nazione|stato estero|kraj|kod kraju|panstwo|landcode
        |phone code|phone country code|calling code|country calling code|dial code|landesvorwahl|landervorwahl|zeme|stat zeme
        |negara
        |kod zeme|ulke""",
    "region": """state|province|region|county|state code|us state|state province|state region|mailing state
        |billing state|bundesland|kanton|departement|estado
|provincia|comunidad
        |comunidad autonoma|regione|prov|wojewodztwo|provincie|regio""",
    "zone": """time zone|timezone|tz|iana zone|iana time zone|zeitzone|fuseau horaire|fuseau|zona horaria|huso horario
        |fuso orario|strefa czasowa|strefa|tijdzone|fuso horario|casova zona|casove pasmo|tidszon|tidszone|zona waktu""",
    "language": """language|lang|language code|preferred language|locale|sprache|korrespondenzsprache
|sprachcode|langue
        |code langue|idioma|lengua|lingua|jezyk|kod jezyka|taal|voertaal|taalcode
        |jazyk|sprog|sprak|bahasa|nyelv""",
    "priority": "priority|prio|prioritat|priorite|prioridad|priorita|priorytet|prioriteit|dringlichkeit",
    "consent": """consent|opt in|optin|permission|marketing consent|einwilligung|werbeeinwilligung|zustimmung
|consentement
        |accord|consentimiento|consenso|zgoda|zgoda marketingowa|toestemming""",
    "company": """company|company name|account name|organisation|organization|business|business name|employer|firma
|firmenname|unternehmen
        |betrieb|entreprise|societe|raison sociale|empresa|compania|razon social|azienda|ditta|ragione sociale|societa
        |nazwa firmy|przedsiebiorstwo|bedrijf|bedrijfsnaam|organisatie""",
    "email": """email|e mail|mail|email address|e mail address|e mail adresse|emailadresse|mailadresse
|courriel|adresse e mail
        |adresse email|adresse mail|correo|correo electronico|posta elettronica|indirizzo email|poczta
        |adres e mail|adres email
        |emailadres|e mailadres""",
    "street": """street|address|street address|address 1|address line 1|strasse|str|adresse|anschrift
|strasse und hausnummer
        |rue|voie|calle|direccion|domicilio|via|indirizzo|ulica|adres|straat|adres 1|straat en huisnummer""",
    "postcode": """postcode|post code|postal code|zip|zip code|zipcode|plz|postleitzahl|code postal|cp
|codigo postal|cap
        |kod pocztowy|postcode plaats""",
    "city": """city|town|place|ort|stadt|wohnort|ville|commune|ciudad|poblacion|localidad|municipio|citta
|comune|localita
        |miasto|miejscowosc|plaats|woonplaats|stad""",
    "fax": """fax|fax number|telefax|faxnummer|fax nr|telecopie|numero de fax|numero fax|numer faksu|faks
|nr faksu|telefaks""",
    "title": """title|salutation|anrede|titel|civilite|titre|tratamiento|titulo|titolo|tytul|aanhef
|zwrot grzecznosciowy""",
    "birthday": """date of birth|birthday|birth date|dob|geburtsdatum|geburtstag|geb datum|date de naissance
        |fecha de nacimiento|data di nascita|data urodzenia|geboortedatum""",
    "reason": "why not taken|reason not taken",
}
"""What a column means → what people call it, in English, German, French, Spanish, Italian, Polish, Dutch, Portuguese, Czech,
Danish, Norwegian, Swedish, Hungarian, Turkish and Indonesian."""


@cache
def headers() -> dict[str, str]:
    """What people call a column → what it means."""
    return {word.strip(): meaning for meaning, words in HEADERS.items() for word in words.split("|")}


_COUNTRIES = """AT austria osterreich autriche oostenrijk aut|AU australia australien australie aus
|BE belgium belgien belgique belgica belgio belgia belgie bel|BG bulgaria bulgarien bulgarie bgr
|BR brazil brasilien bresil brasil brasile brazylia brazilie bra|CA canada kanada can
|CH switzerland schweiz suisse suiza
 svizzera szwajcaria zwitserland che|CN china chine cina chiny chn|CZ czechia czech_republic tschechien tchequie chequia
 cechia czechy tsjechie cze|DE germany deutschland allemagne alemania germania niemcy duitsland deu ger brd|DK denmark
 danemark dinamarca danimarca dania denemarken dnk danmark|ES spain spanien espagne espana spagna hiszpania spanje esp
|FI finland finnland finlande finlandia fin suomi|FR france frankreich francia francja frankrijk fra
|GB united_kingdom uk
 great_britain england scotland wales northern_ireland grossbritannien vereinigtes_konigreich royaume_uni reino_unido
 regno_unito wielka_brytania verenigd_koninkrijk groot_brittannie gbr|GR greece griechenland grece grecia grecja griekenland
 grc|HR croatia kroatien croatie croacia croazia chorwacja kroatie hrv|HU hungary ungarn hongrie hungria ungheria wegry
 hongarije hun|ID indonesia indonesien indonesie indonezja idn
|IE ireland irland irlande irlanda irlandia ierland irl|IN
 india indien inde indie ind|IT italy italien italie italia wlochy ita|JP japan japon giappone japonia jpn
|LU luxembourg
 luxemburg luxemburgo lussemburgo luksemburg lux|MX mexico mexiko mexique messico meksyk mex|NL netherlands the_netherlands
 niederlande pays_bas paises_bajos paesi_bassi holandia nederland holland nld|NO norway norwegen norvege noruega norvegia
 norwegia noorwegen nor norge|NZ new_zealand neuseeland nouvelle_zelande nueva_zelanda nuova_zelanda nzl|PL poland polen
 pologne polonia polska pol|PT portugal portogallo portugalia prt|RO romania rumanien roumanie rumania rumunia roemenie rou
|RU russia russland russie rusia rosja rusland rus
|SE sweden schweden suede suecia svezia szwecja zweden swe sverige|SG
 singapore singapur singapour sgp|SI slovenia slowenien slovenie eslovenia slowenia svn|SK slovakia slowakei slovaquie
 eslovaquia slovacchia slowacja slowakije svk|TR turkey turkei turquie turquia turchia turcja turkije tur turkiye|UA ukraine
 ucrania ucraina ukraina oekraine ukr|US usa united_states united_states_of_america vereinigte_staaten etats_unis
 estados_unidos stati_uniti stany_zjednoczone verenigde_staten america|ZA south_africa sudafrika afrique_du_sud sudafrica
 zaf"""

_LANGUAGES = """en english englisch anglais ingles inglese angielski engels eng|de german deutsch allemand aleman tedesco
 niemiecki duits deu ger|fr french franzosisch francais frances francese francuski frans fra fre|es spanish spanisch espagnol
 espanol spagnolo hiszpanski spaans spa castellano|it italian italienisch italien italiano wloski italiaans ita|pl polish
 polnisch polonais polaco polacco polski pools pol|nl dutch niederlandisch neerlandais neerlandes olandese niderlandzki
 holenderski nederlands nld dut|pt portuguese portugiesisch portugais portugues portoghese portugalski portugees por|tr
 turkish turkisch turc turco turecki turks tur|ru russian russisch russe ruso russo rosyjski rus|da danish danisch danois dan
 dansk|sv swedish schwedisch suedois swe svenska|cs czech tschechisch tcheque ces cesky
|id indonesian indonesisch indonesien
 ind|uk ukrainian ukrainisch ukrainien ukr|ro romanian rumanisch roumain ron
|hu hungarian ungarisch hongrois hun|ar arabic
 arabisch arabe ara|zh chinese chinesisch chinois zho|ja japanese japanisch japonais jpn"""

_STATES = """DE BW baden_wurttemberg|DE BY bayern bavaria|DE BE berlin|DE BB brandenburg|DE HB bremen
|DE HH hamburg|DE HE
 hessen|DE MV mecklenburg_vorpommern|DE NI niedersachsen|DE NW nordrhein_westfalen nrw|DE RP rheinland_pfalz
|DE SL saarland
|DE SN sachsen|DE ST sachsen_anhalt|DE SH schleswig_holstein|DE TH thuringen|US CA california|US NY new_york
|US TX texas
|US FL florida|US IL illinois|US PA pennsylvania|US OH ohio|US GA georgia|US NC north_carolina|US MI michigan
|US NJ new_jersey
|US VA virginia|US WA washington|US AZ arizona|US MA massachusetts|US TN tennessee|US IN indiana
|US MO missouri|US MD maryland
|US WI wisconsin|US CO colorado|US MN minnesota|US SC south_carolina|US AL alabama|US LA louisiana
|US KY kentucky|US OR oregon
|US OK oklahoma|US CT connecticut|US UT utah|US IA iowa|US NV nevada|US AR arkansas|US MS mississippi
|US KS kansas|US NM
 new_mexico|US NE nebraska|US ID idaho|US WV west_virginia|US HI hawaii|US NH new_hampshire|US ME maine
|US MT montana|US RI
 rhode_island|US DE delaware|US SD south_dakota|US ND north_dakota|US AK alaska|US DC district_of_columbia
|US VT vermont|US WY
 wyoming|GB ENG england|GB SCT scotland|GB WLS wales|GB NIR northern_ireland"""


def _entries(table: str) -> list[list[str]]:
    return [[word.replace("_", " ") for word in entry.split()] for entry in table.split("|")]


@cache
def _countries() -> dict[str, str]:
    found = {code.lower(): code for code in phonenumbers.SUPPORTED_REGIONS}
    return {word: code for code, *words in _entries(_COUNTRIES) for word in words} | found


def country(text: str) -> str | None:
    """The ISO 3166-1 code that is meant by a code, a name or `+49`; None if none is known."""
    digits = text.strip().removeprefix("+").removeprefix("00")
    if digits.isdecimal() and len(digits) <= 3:
        names = phonenumbers.COUNTRY_CODE_TO_REGION_CODE.get(int(digits), ())
        return names[0] if names and names[0].isalpha() else None
    found = key(text)
    return _countries().get(found) or (_countries().get(found.replace(" ", "")) if len(found) < 6 else None)


@cache
def _languages() -> dict[str, str]:
    return {word: code for code, *words in _entries(_LANGUAGES) for word in (code, *words)}


def language(text: str) -> str | None:
    """The language that is meant, as a code such as `de` or `de-CH`; None if none is known."""
    code = text.strip().replace("_", "-")
    if re.fullmatch(r"[A-Za-z]{2}-[A-Za-z]{2}", code) and code[:2].lower() in _languages():
        return f"{code[:2].lower()}-{code[3:].upper()}"
    return _languages().get(key(text))


@cache
def _states() -> dict[tuple[str, str], str]:
    return {(where, word): code for where, code, *words in _entries(_STATES) for word in words}


def state(text: str, where: str) -> str:
    """The part after the country of an ISO 3166-2 code, of a state's code or name in that country; "" if none is known."""
    code = text.strip().upper()
    if found := re.fullmatch(r"(?:([A-Z]{2})-)?([A-Z0-9]{1,3})", code):
        return found.group(2) if found.group(1) in (None, where) else ""
    return _states().get((where, key(text)), "")
