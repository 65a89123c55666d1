"""How a field is asked for: phrasings the reader is trained on, and others it is judged on.

A phrasing holds the place of the key as `{}`. What the document does not hold has one answer, `ABSENT`.
"""

from __future__ import annotations

from random import Random

ABSENT = "not in the document"

TRAINED = (
    "What is the value of {}?",
    "What is the value of {}?",
    "What is the value of {}?",
    "What is the {}?",
    "What is the {}?",
    "What's the {}?",
    "{}?",
    "{}",
    "{}:",
    "Find {}.",
    "Find the {}.",
    "Give me the {}.",
    "Give the value of {}.",
    "Tell me the {}.",
    "Please tell me the {}.",
    "Which {} is stated?",
    "What does it say about the {}?",
    "How much is the {}?",
    "How long is the {}?",
    "When is the {}?",
    "Who is the {}?",
    "Look up the {}.",
    "what is {}",
    "what is the {} in this document?",
    "What {} does the text give?",
)
HELD_OUT = (
    "What's the {} here?",
    "Could you tell me the {}?",
    "I need the {}.",
    "State the {}.",
    "What was the {}?",
    "Read me the {}, please.",
    "Do you know the {}?",
    "Show {}.",
)


def phrased(rng: Random, key: str, phrasings: tuple[str, ...] = TRAINED) -> tuple[str, str, str]:
    """A question in three parts: what stands before the key, the key in some case, and what stands behind it.

    Two thirds keep the key's case. The key has as many characters as it had.
    """
    before, after = rng.choice(phrasings).split("{}")
    case = rng.random()
    if case < 0.25:
        key = key.lower()
    elif case < 0.29:
        key = key.upper()
    elif case < 0.33:
        key = key.title()
    return before, key, after
