"""How a document is asked: phrasings the reader is trained on, and others it is judged on.

A phrasing holds the place of a key, or of another part of the document, as `{}`. What the document does not hold has one answer, `ABSENT`.
"""

from __future__ import annotations

from itertools import product
from random import Random

ABSENT = "not in the document"

PLAIN = (
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
# Any of an opening, what is asked for, and where. A reader that has seen a few dozen phrasings knows these and reads half of what is asked
# in other words; of thousands none comes often enough to be learned by heart.
_ASKING = (
    *(f"{word} is" for word in ("What", "what", "Which", "How much", "How long", "When", "Who", "Where")),
    *("What does it say about", "Can I have", "Would you give me", "May I know", "Is there", "Have you found", "What did they write for"),
)
_TELLING = (
    "Find|Give|Give me|Tell me|Look up|Name|Get|List|Write|Write down|Print|Return|Quote|Extract|"
    "Say|Let me know|I want|I am looking for|I would like|Please find|Please give me|Please tell me|"
    "Search for|Report|Provide|Check|Fetch|Pick out|Spell out|Type|Output|Copy|Locate|Mention|"
    "Specify|Supply|Send|Share|Confirm|Determine|Identify|Retrieve|Answer with|Repeat|Recall|"
    "Help me find|Enter|Put down"
).split("|")
_WANTED = ("{}", "{}", "the {}", "the value of {}", "the value of the {}", "its {}", "this {}", "the exact {}", "the {} given", "any {}")
# What follows a key is not a part of it: a reader that knew but eight endings took any other for one, and found no such key.
_WHERE = [""] * 12 + (
    " in this document| in the text| on these pages| according to the document| as written| there| now| today|"
    " exactly| if any| again| for me|, thanks|, if you can|, quickly| anywhere| by the way| precisely|"
    " then| at all| right now|, sir| in full| on record| somewhere|, in short| as of now|, ok| yet|"
    " still| below| above|, would you|, and nothing else| in one word|, friend| in the file| at present|"
    ", my dear| only| in it"
).split("|")
VARIED = tuple(
    f"{opening} {wanted}{where}{end}"
    for openings, ends in ((_ASKING, ("?",)), (_TELLING, (".", "")))
    for opening, wanted, where, end in product(openings, _WANTED, _WHERE, ends)
)
TRAINED = (*PLAIN, *VARIED)
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
LINES = (
    'Which line contains "{}"?',
    'Find the line that contains "{}".',
    'Find the line with "{}".',
    'Quote the line that says "{}".',
    'Copy the line with "{}"',
    "Which line mentions {}?",
    "which line has {}",
    "Give me the line with {}.",
    "In which line does {} stand?",
    "Show the whole line around {}.",
)
COUNTED = (
    'How often does "{}" occur?',
    'How many times does the word "{}" appear?',
    "How many times is {} written?",
    "How often is the word {} used?",
    "Count the word {}.",
    "Count how often {} occurs",
)
# Each with whether the larger of the two is asked for.
COMPARED = tuple(
    (phrasing.format(word, "{}", "{}"), larger)
    for larger, words in ((True, ("larger", "higher", "greater", "more")), (False, ("smaller", "lower", "less")))
    for word in words
    for phrasing in ("Which is {}, {} or {}?", "Which is {}: {} or {}?", "What is {}, the {} or the {}?", "which is {} {} or {}")
)


def phrased(rng: Random, key: str, phrasings: tuple[str, ...] = ()) -> tuple[str, str, str]:
    """A question in three parts: what stands before the key, the key in some case, and what stands behind it.

    Without `phrasings` in those of training, half of the time a plain one. Two thirds keep the key's case. The key has as many characters
    as it had.
    """
    before, after = rng.choice(phrasings or (PLAIN if rng.random() < 0.5 else VARIED)).split("{}")
    case = rng.random()
    if case < 0.25:
        key = key.lower()
    elif case < 0.29:
        key = key.upper()
    elif case < 0.33:
        key = key.title()
    return before, key, after
