"""Words the reader is trained on, and others it is judged on.

Plain business and technical English, written for this project and fit to publish, plus pronounceable words made from
syllables: a reader must spell what it sees, not recall what it knows. The two vocabularies share only the function
words; the syllables of one never make the words of the other.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from string import ascii_lowercase

FUNCTION_WORDS = (
    "the a an of to in on at by for with from and or but if when while after before until shall may must will can is are "
    "was be has have not no any each all this that these those it its they their which who as than then within under over "
    "per between without during only also both such other more most one two three"
).split()


@dataclass(frozen=True)
class Vocabulary:
    """Nouns, verbs and adjectives of one side of the split, and the syllables its invented words are made of."""

    nouns: tuple[str, ...]
    verbs: tuple[str, ...]
    adjectives: tuple[str, ...]
    onsets: tuple[str, ...]
    nuclei: tuple[str, ...]
    codas: tuple[str, ...]
    scrambled: float  # share of words that are letters at random

    def invented(self, rng: random.Random) -> str:
        """A pronounceable word of one to three syllables."""
        return "".join(rng.choice(self.onsets) + rng.choice(self.nuclei) + rng.choice(self.codas) for _ in range(rng.randint(1, 3)))

    def word(self, rng: random.Random) -> str:
        """Any word. Of those that are not scrambled, half are invented."""
        if rng.random() < self.scrambled:
            return "".join(rng.choice(ascii_lowercase) for _ in range(rng.randint(1, 10)))
        draw = rng.random()
        if draw < 0.5:
            return self.invented(rng)
        return rng.choice(self.nouns if draw < 0.75 else self.verbs if draw < 0.87 else self.adjectives)


TRAINING = Vocabulary(
    nouns=tuple(
        """
        order invoice contract customer supplier account amount balance batch budget building cable calendar capacity card
        carrier case certificate channel charge city claim clause code collection company component connection container
        copy cost country court cover credit currency cycle data date day deadline delivery department deposit design
        device discount district document door duty email employee engine equipment error estimate event exchange fee field
        file filter firm floor form frame freight fuel function garden gate grade grant ground group guarantee guide harbor
        hour house index inspection insurance interest item journal key kitchen label lamp language lease ledger length
        letter level license limit line list loan location lock log machine mail manager margin market material measure
        meeting member memory message meter method model module month motor name network note notice number object office
        officer operator option owner package page paper parcel part partner party password path patient payment period
        permit person phone pipe place plan plant plate platform point policy port position power premium price printer
        product profile project property protocol pump purchase quality quantity quarter queue rate ratio reading reason
        receipt record reference refund region register release rent repair report request reserve result return review
        risk road role room route row sale sample schedule section sensor serial series server service session share sheet
        shift ship signal site size source space speed stage standard state station status step stock storage store street
        street supply surface switch system table tank target task tax team temperature tenant term test ticket time title
        tower track trade train transfer truck type unit update user valve value vehicle version vessel voltage volume
        vote wage wall warehouse warranty water week weight window wire witness worker yard year zone
        """.split()
    ),
    verbs=tuple(
        """
        accept add adjust agree allow apply approve arrive ask assign attach begin bring build buy call cancel carry change
        check choose close collect compare complete confirm connect contain copy count cover create decide deliver deny
        describe draw drive enter expect extend fill find follow give grow handle hold include inform inspect install issue
        join keep leave lend list load lose maintain make mark meet move need notify obtain offer open operate order pack
        pay place plan prepare print produce provide publish raise reach read receive record reduce refuse remain remove
        renew rent repair replace report require reset return save sell send serve set show sign start stop store supply
        support take tell terminate test trade transfer turn update use visit wait warn watch weigh work write
        """.split()
    ),
    adjectives=tuple(
        """
        active annual basic blue broad central clean clear cold common complete current daily deep direct dry early eastern
        empty equal exact external fair fast final firm fixed flat free full general good green heavy high initial inner
        joint large late legal light local long low main major maximum minimum minor monthly narrow net new northern old
        open outer past plain primary prior private public quick ready red regular round safe sharp short single slow small
        soft solid special spare stable steady strong total upper urgent valid warm weekly white whole wide written yellow
        """.split()
    ),
    onsets=("", *"b br c ch d dr f fl g gr h j k l m n p pr qu r s sl st t tr v w y z".split()),
    nuclei=("a", "e", "i", "o", "u", "ai", "ea", "io", "ou", "y"),
    codas=("", "", "n", "r", "s", "l", "x", "nd", "lt", "rt"),
    # Without these a small decoder learns the words instead of the letters: 97 % of characters right on its own vocabulary,
    # 91 % on another.
    scrambled=0.6,
)

HELD_OUT = Vocabulary(
    nouns=tuple(
        """
        shipment consignment voucher applicant landlord dosage archive asset barrel beacon boiler branch bridge broker
        cabinet camera chamber chapter cluster compressor counter courier crane curve dealer desk diameter dock drawer
        edition envelope factory fence festival forest furnace gauge goods handle hangar highway hotel household island
        kernel laboratory lantern library lumber magnet mineral mortgage museum orchard outlet oven pallet panel pension
        pilot pressure quota rack railway reactor recipe relay ribbon salary scanner seal shelf shutter spindle stadium
        subsidy summary tariff telescope theatre tonnage tractor treaty tunnel turbine tenure vaccine vendor viaduct
        village wagon waiver workshop wing
        """.split()
    ),
    verbs=tuple(
        """
        absorb assemble balance borrow calculate clarify combine compute convert defer detect discuss dispatch divide
        employ enclose evaluate examine exceed finish gather import invest invite launch learn locate merge monitor occupy
        postpone predict protect restore retain revise scan settle shorten specify submit tighten translate verify
        withdraw
        """.split()
    ),
    adjectives=tuple(
        """
        adequate alternate ample brief bright circular coarse compact concrete curved delicate dense digital distant double
        durable eager elastic formal fragile generous gross hollow hourly humid idle lateral linear marine metric mobile
        modest neutral parallel partial polite proper rapid remote rigid robust rural secure silent smooth southern square
        vertical vivid western
        """.split()
    ),
    onsets=tuple("bl cl cr d fr gl h kn l m n ph pl r sc sm sp sw th v wh z".split()),
    nuclei=("a", "ee", "ie", "oa", "oo", "au", "ei", "u", "i", "o"),
    codas=("b", "d", "g", "k", "lm", "mp", "ng", "nt", "p", "sk", "sp", "th", ""),
    scrambled=0.0,
)
