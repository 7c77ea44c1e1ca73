"""Abbreviations by language: after which a sentence goes on, and the words that begin one all the same.

- Names are written without their last full stop. A name with a capital matches only with that capital ("Rep. Smith",
  but "one more rep."), any other in either case. A name of several parts matches with spaces in it, too ("z. B.").
- A language without a table, or one that is not known, has the names of all tables. A name that has several kinds there
  is of the kind that ends sentences most often, and ordinary words of other languages are left out.

Sources: Unicode CLDR's segmentation suppressions and the abbreviations that sentencex, pySBD and Moses list, as facts
about the languages. Most of what they list is not repeated here: it stands before lower case, where no sentence ends.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from functools import reduce

_COMPOUND = re.compile("[-'’]")


class Kind(IntEnum):
    """What a sentence goes on before, from the kind that ends it least often."""

    ALWAYS = 0  # everything: "e.g."
    NAME = 1  # everything but a word that often begins a sentence: "Sen. Jones", "5 Mio. Euro"
    NUMBER_OR_SMALL = 2  # a number, or a word in lower case: "Sept. 11", "in Sept. we"
    SMALL = 3  # a word in lower case: "etc. are", "p.m. on"
    NUMBER = 4  # a number; otherwise it is a word of its own: "No. 5"


@dataclass(frozen=True, slots=True)
class Abbreviations:
    """The facts of one language. `units`: NUMBER_OR_SMALL after a number, and otherwise words. `starters`: casefolded.

    `parts`: the beginnings, of two parts or more, of names that have several: "av.j" of "av.j.-c".
    """

    kinds: dict[str, Kind]
    units: frozenset[str]
    starters: frozenset[str]
    parts: frozenset[str]
    has_ordinals: bool

    def kind_of(self, name: str) -> Kind | None:
        """The kind of a word without its last full stop; of a compound, its last part's (Dipl.-Ing, l'avv)."""
        last = _COMPOUND.split(name)[-1]
        for spelling in (name, last) if 1 < len(last) < len(name) else (name,):
            kind = self.kinds.get(spelling)
            if kind is not None:
                return kind
            kind = self.kinds.get(spelling.casefold())
            if kind is not None and not (kind is Kind.NAME and spelling.isupper() and "." not in spelling):
                return kind  # not an acronym: HR is not Herr
        return None


def _language(
    *,
    always: str = "",
    names: str = "",
    number_or_small: str = "",
    small: str = "",
    number: str = "",
    units: str = "",
    starters: str = "",
    has_ordinals: bool = False,
) -> Abbreviations:
    kinds: dict[str, Kind] = {}
    for kind, listed in zip(Kind, (always, names, number_or_small, small, number), strict=True):
        kinds |= dict.fromkeys(listed.split(), kind)
    return Abbreviations(
        kinds, frozenset(units.split()), frozenset(starters.split()), frozenset(_parts(kinds)), has_ordinals
    )


def _parts(names: Iterable[str]) -> Iterable[str]:
    for name in names:
        first, *others = name.casefold().split(".")
        for part in others:
            first = f"{first}.{part}"
            yield first


# Every language quotes these, in names of people, companies and places.
_EVERYWHERE = _language(
    always="mr mrs Ms dr prof messrs mme mmes mlle vs cf e.g i.e v",
    names="st ST ste mt jr sr inc ltd Co corp bros Sen Gov Gen Rev Capt Lt Col Sgt Maj",
    number_or_small="ext tel a.d b.c b.c.e c.e",
    small="etc a.m p.m ph.d al co",
)
_TABLES = {
    "en": _language(
        always="approx viz",
        names="Sen Sens Gov Govs Rep Reps Gen Rev Hon Pres capt cpt lt col sgt cpl pvt maj cmdr adm supt Insp Det msgr "
        "atty attys amb assoc asst dept sr Ft Mtn ave blvd Rd hwy pkwy Sq bldg univ Calif Fla Ariz Colo Mich Minn "
        "Okla Tenn Wis Wyo Neb gov sen gen",
        number_or_small="sq.ft fl.oz jan feb Mar apr Jun Jul aug sep sept oct nov Dec Mon tue tues Wed Thu thur thurs "
        "Fri extn vol vols chap figs pp apt",
        number="no nos fig p sec ch art para pt pts ep op Ex eq rm c Sat Sun nr ver",
        units="deg ft in lb lbs oz hr hrs min mins sec secs yd yds mi mph km kg cm mm ml gal mo yr yrs",
        starters="a an the this that these those there here it he she we they you i my your his her its our their who "
        "what when where why how which if and but or so because although though while after before since then now "
        "yes no not in on at for with from by to as do does did is are was were can could should would have has had "
        "let please maybe perhaps however also some many most nobody everyone everything nothing today yesterday "
        "tomorrow",
    ),
    "de": _language(
        always="hrn frl z z.b z.t z.zt d.h u.u i.d.r i.e m.e m.a.w o.g bzw ggf ggfs evtl sog sogen vgl inkl exkl zzgl "
        "bzgl bspw insb insbes geb gest ehem urspr einschl ca med phil jur rer nat a.m k.u.k h.c dipl",
        names="hr Fr St u.a v.a Gen ing Mag Abt Fa Fam Str Hbf mio mrd tsd Std Min Sek v.chr n.chr chr v.u.z n.u.z u.z "
        "e.v a.d i.a i.v d.ä d.j o.ä Pfr kath ev österr Dir hrsg geschw gebr jh jhd jhdt Th",
        number_or_small="jan jän feb mär apr jun jul aug sep sept okt nov dez nr nrn abs kap bd bde ziff tel abb tab",
        small="usw usf u.ä u.v.m u.v.a dgl",
        number="s art anm Mo Di Mi Do Sa p",
        starters="der die das den dem des ein eine einen einem einer es er sie ich du wir ihr man mein meine dein sein "
        "seine unser unsere dies diese dieser dieses was wer wie wo wann warum wenn weil als ob und aber oder denn "
        "doch also so dann danach da dort hier heute gestern morgen jetzt nun nein ja nicht kein keine im in am an "
        "auf aus bei mit nach vor zu zum zur für über unter durch gegen ohne um bis seit während trotz dabei dafür "
        "damit darum deshalb außerdem jedoch trotzdem auch noch nur schon sehr viele alle einige manche niemand "
        "vielleicht leider natürlich ist sind war waren hat haben wird kann",
        has_ordinals=True,
    ),
    "fr": _language(
        always="mgr p.ex c.-à-d c.à.d env ibid",
        names="MM Me Pr Cie Sté av bd boul av.j.-c ap.j.-c apr.j.-c j.-c Ph Ch Th gén Col lt cdt adj éd dir dép sén",
        number_or_small="ex janv févr fév avr juil sept oct nov déc chap fig vol tél pp réf num nos",
        small="suiv sq hab",
        number="no art p n s",
        units="km kg cm mm min sec h",
        starters="le la les l' un une des ce cet cette ces c' il elle ils elles on je j' tu nous vous mon ma mes ton "
        "son sa ses notre votre leur qui que qu' quoi quand où comment pourquoi si et mais ou donc or car alors puis "
        "ensuite après avant depuis pendant dans en à au aux sur sous avec sans pour par chez ici là oui non ne n' "
        "aujourd' hier demain bien voici voilà cela ça tout tous toutes personne rien",
    ),
    "it": _language(
        always="p.es es cfr v.s ill.mo psicol",
        names="sig sigg sig.ra sig.na sig.re dott dott.ssa d.ssa prof.ssa ing avv arch geom rag on sen mons gen col "
        "magg ten dir brig egr gent spett a.c d.c s.p.a s.r.l s.n.c p.zza v.le Sant all",
        number_or_small="genn febb apr magg giu lug ago sett ott nov dic pag pagg artt vol tav num",
        small="ecc seg segg",
        number="feb mar set art cap fig nr n nn p pp sec int c",
        units="km kg cm mm min sec h mln mld",
        starters="il lo la i gli le un uno una l' questo questa questi quello quella lui lei noi voi loro io tu si ci "
        "chi che cosa quando dove come perché se e ed ma o però quindi allora poi dopo prima in nel nella a al alla "
        "da dal di del con per su tra fra non sì no è sono era ha hanno oggi ieri domani qui lì ecco anche ancora "
        "tutti tutto molti ogni nessuno",
    ),
    "es": _language(
        always="p.ej ej sr sra sras srta sres dra dras",
        names="dña lic lcdo lcda ldo ing arq gral cnel tte cap cmdte Gob Dip Sen Mons Pbro rvdo excmo excma ilmo ilma "
        "mtro mtra Sto Sta hnos Hno Hna av avda pza dpto depto Cía ltda ee.uu ff.aa cc.aa jj.oo rr.hh s.a s.l a.c "
        "d.c c.v n.e s.s aa.vv pdte",
        number_or_small="ene feb abr may jun jul ago sept oct nov dic pág págs núm núms arts vol fig tel tfno ext "
        "aprox máx mín apdo",
        small="ud uds vd vds",
        number="art p pp n mar set",
        units="km kg cm mm min seg h",
        starters="el la los las lo un una unos unas este esta esto estos ese esa eso él ella ellos ellas yo tú usted "
        "ustedes nosotros se me te nos le les mi su sus qué quién cuándo dónde cómo por porque si y pero o pues "
        "entonces luego después antes en con sin para de del al a desde hasta no sí es son era fue ha hay está hoy "
        "ayer mañana aquí allí también además todo todos muchos cada cuando como quien nadie",
    ),
    "pt": _language(
        always="p.ex sr sra sras srta srs dra drs profa exmo exma ilmo ilma v.exa s.exa aprox",
        names="eng Pe Des Min Dep Ver Gov Sen Cel Ten Sgt Cap Maj Alm Brig Pres Gen av pç cia ltda lda a.c d.c s.a Sto "
        "Sta exa",
        number_or_small="jan fev abr jun jul ago set out nov dez pág págs séc vol fig tel núm apto arts",
        number="mar mai art cap ap n p pp",
        units="km kg cm mm min seg h",
        starters="o a os as um uma uns umas este esta isto esse essa isso aquele aquela aquilo ele ela eles elas eu tu "
        "você vocês nós se me meu minha seu sua nosso que quem quando onde como porquê porque por e mas ou então "
        "depois antes em no na nos nas com sem para de do da dos das ao à desde até não sim é são era foi há está "
        "hoje ontem amanhã aqui ali também todo todos muitos cada ninguém",
    ),
    "ru": _language(
        always="т.е т.к т.н т.о см напр ср",
        names="г ул пл просп пер наб обл оз пос акад проф ген полк тов гр св о р зав зам дж мин н.э нач ст ред",
        number_or_small="янв февр мар апр авг сент окт нояб дек тыс млн млрд трлн рис стр гл табл пп кв корп тел руб "
        "коп долл",
        small="т.д т.п др проч пр",
        number="с п д т к ч",
        units="г гг в вв км м кг см мм мин сек ч л т га шт чел экз",
        starters="а в во и к ко на с со у о об от до из за по при под над для без я ты он она оно мы вы они мой твой "
        "его её их наш ваш это этот эта эти тот та те то кто что где когда как почему зачем если но или да нет не ни "
        "так там тут здесь потом затем тогда теперь сейчас сегодня вчера завтра после перед все всё многие был была "
        "было были есть однако поэтому также ещё уже никто",
    ),
}
_OTHERS = _language(  # Polish, Dutch, Swedish, Turkish, Czech, Hindi: the last are the letters P, J, B, C and D
    always="np tzw dhr mevr bijv örn डॉ पी जे बी सी डी",
    small="vb atd itp itd",
)
# Ordinary words of a language that has no table, or of another one that has.
_WORDS = frozenset("on es all me Me set out mar mai may ten ex int dir".split())

# Behind a time of day or a day of the week, in English: these belong to it.
DATE_WORDS = frozenset(
    "monday tuesday wednesday thursday friday saturday sunday january february march april may june july august "
    "september october november december jan feb mar apr jun jul aug sep sept oct nov dec eastern pacific "
    "central mountain gmt utc est edt cst cdt mst mdt pst pdt et ct mt pt bst cet".split()
)
# German writes ordinals as "3." and the nouns after them with a capital: the words around them decide. Other languages
# with such ordinals (Danish, Finnish, Czech, Polish, Hungarian, Turkish …) continue in lower case and need no table.
BEFORE_ORDINAL = frozenset(
    "am im zum zur vom beim der die den dem das des jeder jeden jede jedes ein eine einen einem einer mein meine "
    "meinen meinem dein sein seine seinen seinem seiner ihr ihre ihren ihrem ihrer unser unsere unseren "
    "diesem diesen".split()
)
AFTER_ORDINAL = frozenset(
    "januar jänner februar märz april mai juni juli august september oktober november dezember jan. feb. apr. jun. "
    "jul. aug. sep. sept. okt. nov. dez. jahrhundert jahrhunderts jahrtausend weltkrieg weltkriegs geburtstag "
    "auflage klasse stock etage platz kapitel".split()
)


def _united(one: Abbreviations, other: Abbreviations, left_out: frozenset[str] = frozenset()) -> Abbreviations:
    kinds = dict(one.kinds)
    for name, kind in other.kinds.items():
        if name not in left_out:
            kinds[name] = max(kind, kinds.get(name, kind))
    return Abbreviations(
        kinds,
        one.units | other.units,
        one.starters | other.starters,
        one.parts | other.parts,
        one.has_ordinals or other.has_ordinals,
    )


_BY_LANGUAGE = {language: _united(_EVERYWHERE, table) for language, table in _TABLES.items()}
_ANY = reduce(lambda one, other: _united(one, other, _WORDS), (*_TABLES.values(), _OTHERS), _EVERYWHERE)


def abbreviations_of(language: str) -> Abbreviations:
    """The abbreviations of a language, by its code; those of all languages for any other code and for ""."""
    return _BY_LANGUAGE.get(language, _ANY)
