"""The methods that are compared: what each keeps of an example, and how it scores."""

from dataclasses import dataclass

from retraining.plans import Plan

__all__ = ["Way", "halfway", "logra", "ways"]

EXACT = ("--exact",)
#: Numbers of examples that a whitening is also estimated on, where whitenings are compared.
SAMPLES = (20, 100)
#: Shares of the energy that ranks by layer keep, where ranks are compared.
ENERGIES = (0.4, 0.45, 0.5, 0.6, 0.7, 0.85)
#: … where they are compared under other whitenings, too.
FEW_ENERGIES = (0.4, 0.45, 0.5, 0.7)


@dataclass(frozen=True)
class Way:
    """A method.

    Attributes:
        family: What it belongs to: a row of the plot's legend.
        form: What it keeps of a layer: `full`, or `c = 4`; empty without gradients.
        d: Of the projections; 0 without gradients.
        encoding: Of what is kept.
        asked: Curvature and method in words.
        rank: c, or None for matrices.
        epsilon: ε of the store's whitening; None where it does not whiten.
        energy: Share of the energy that the rank of each layer keeps, where ranks differ by layer.
        sample: How many of the examples the whitening is estimated on; None for all.
        recording: `plain`, `whitened` (by the recorder), `adam`, `trak`, `epochs-N` for the model after N of them, or
            `mean` of all checkpoints; empty without gradients.
        more: Recordings whose scores are averaged with those of the first, each in a store of its own.
        method: Of `lorif query`.
        fit: Options of `lorif fit`; None where the method needs none.
    """

    family: str
    form: str
    d: int
    encoding: str
    asked: str
    rank: int | None = None
    epsilon: float | None = None
    energy: float | None = None
    sample: int | None = None
    recording: str = "plain"
    more: tuple[str, ...] = ()
    method: str = "influence"
    fit: tuple[str, ...] | None = None

    @property
    def title(self) -> str:
        """What it is called in tables."""
        parts = [f"d = {self.d}" if self.d else "", self.form, self.encoding, self.asked]
        return ": ".join(part for part in (self.family, ", ".join(part for part in parts if part)) if part)

    @property
    def store(self) -> tuple[object, ...]:
        """What tells stores apart."""
        parts = self.recording, self.d, self.rank, self.encoding, self.epsilon
        more = ("of", self.sample), ("energy", self.energy)
        return (*parts, *(f"{word}-{value}" for word, value in more if value is not None))

    @property
    def key(self) -> str:
        """A name for files, different for every way."""
        signs = "".join(sign if sign.isalnum() or sign == "." else "-" for sign in self.title)
        return "-".join(part for part in signs.split("-") if part)


def halfway(plan: Plan) -> list[int]:
    """After how many epochs the explained model is looked at, besides at the end: a third and two thirds."""
    return sorted({max(1, round(plan.tuning.epochs / 3)), round(2 * plan.tuning.epochs / 3)})


def logra(d: int) -> Way:
    """What the others are compared with."""
    return Way("LoGRA", "full", d, "f16", "exact", fit=EXACT)


def _factors(d: int, rank: int, encoding: str, asked: str, epsilon: float | None = None, **options: object) -> Way:
    family = "LoRIF" if epsilon is None else "LoRIF whitened"
    return Way(family, f"c = {rank}", d, encoding, asked, rank=rank, epsilon=epsilon, **options)


def _otherwise_recorded(plan: Plan) -> list[Way]:
    """Of other gradients than the explained model's: of several checkpoints, or as the optimizer scales them."""
    largest, middle = max(plan.dimensions), plan.ranks[len(plan.ranks) // 2]
    epsilon, *others = plan.epsilons
    epochs = tuple(f"epochs-{each}" for each in halfway(plan))
    scores = f"exact, mean of {len(epochs) + 1} checkpoints"
    scaled = "exact, gradients as AdamW scales them"
    result = [
        Way("LoGRA", "full", largest, "f16", scores, more=epochs, fit=EXACT),
        _factors(largest, middle, "q2", scores, epsilon, more=epochs, fit=EXACT),
        Way("LoGRA", "full", largest, "f16", scaled, recording="adam", fit=EXACT),
        _factors(largest, middle, "q2", scaled, epsilon, recording="adam", fit=EXACT),
    ]
    asked = f"exact, gradients averaged over {len(epochs) + 1} checkpoints"
    options = {"recording": "mean", "fit": EXACT}
    for d in plan.dimensions:
        result.append(Way("LoGRA", "full", d, "f16", asked, **options))
        result += [_factors(d, rank, "q2", asked, epsilon, **options) for rank in plan.ranks[:3]]
        for share in ENERGIES:
            form = f"{share:.0%} of the energy"
            result.append(Way("LoRIF whitened", form, d, "q2", asked, epsilon=epsilon, energy=share, **options))
    for each in others:
        under = asked.replace("exact", f"exact, ε = {each:g}")
        for share in FEW_ENERGIES:
            form = f"{share:.0%} of the energy"
            result.append(Way("LoRIF whitened", form, largest, "q2", under, epsilon=each, energy=share, **options))
    return result


def ways(plan: Plan) -> list[Way]:
    """Every method of an experiment."""
    result = [
        Way("random", "", 0, "", "", recording="", method="random"),
        Way("embedding", "", 0, "f16", "cosine", recording="", method="embedding"),
    ]
    epsilon, *others = plan.epsilons
    first, largest, middle = plan.encodings[0], max(plan.dimensions), plan.ranks[len(plan.ranks) // 2]
    for d in plan.dimensions:
        result += [
            logra(d),
            Way("LoGRA", "full", d, "f16", "global", fit=(*EXACT, "--scope", "global")),
            Way("dot", "full", d, "f16", "", method="dot"),
            Way("cosine", "full", d, "f16", "", method="cosine"),
        ]
        for encoding in (first, "q2", "q1") if len(plan.ranks) > 1 else (first,):
            result.append(Way("LoRIF whitened", "full", d, encoding, "exact", epsilon=epsilon, fit=EXACT))
        for rank in plan.ranks:
            for encoding in plan.encodings:
                result.append(_factors(d, rank, encoding, "exact", fit=EXACT))
                result.append(_factors(d, rank, encoding, "exact", epsilon, fit=EXACT))
            result.append(_factors(d, rank, "q2", "no curvature", epsilon, method="whitened-dot"))
        for share in ENERGIES if others else ():
            form = f"{share:.0%} of the energy"
            way = Way("LoRIF whitened", form, d, "q2", "exact", epsilon=epsilon, energy=share, fit=EXACT)
            result.append(way)
        for r in plan.fits:
            for each in (None, epsilon):
                result.append(_factors(d, middle, "q2", f"r = {r}", each, fit=("--rank", str(r))))
        for rank in plan.ranks[-1:]:
            result.append(_factors(d, rank, first, "dot", method="dot"))
    for each in others:
        result.append(_factors(largest, middle, "q2", f"exact, ε = {each:g}", each, fit=EXACT))
    for sample in SAMPLES if others else ():
        asked = f"exact, whitened on {sample} examples"
        result.append(_factors(largest, middle, "q2", asked, epsilon, sample=sample, fit=EXACT))
    if others:
        result += _otherwise_recorded(plan)
    result += [
        Way("LoRIF whitened", f"c = {middle}", largest, "q2", "exact, factors by the recorder", rank=middle,
            recording="whitened", fit=EXACT),
        Way("TRAK", "projected", min(plan.dimensions), "f16", "exact global", recording="trak",
            fit=(*EXACT, "--scope", "global")),
    ]  # fmt: skip
    return result
