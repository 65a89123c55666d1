"""The texts the typesetting benches draw: the same on every run, and free to copy.

English comes from the licence texts that Debian ships (/usr/share/common-licenses), which may be copied verbatim; a box without them
gets texts of the reader's training vocabulary instead. Chinese is drawn at random from a small list of everyday words.
"""

from __future__ import annotations

import functools
import itertools
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path

LICENCES = Path("/usr/share/common-licenses")
ENGLISH = ("Apache-2.0", "Artistic", "CC0-1.0", "GFDL-1.3", "GPL-2", "GPL-3", "LGPL-2.1", "MPL-2.0")
CHINESE = (
    "今天 明天 上午 下午 我们 他们 大家 先生 老师 学生 朋友 城市 学校 公司 工厂 车站 道路 天气 下雨 刮风 春天 夏天 秋天 冬天 "
    "山水 河流 树木 花草 报告 文件 合同 价格 数量 日期 地址 电话 问题 办法 结果 原因 需要 可以 应该 已经 正在 开始 结束 打开 "
    "关闭 检查 记录 发送 收到 阅读 书写 说明 的 了 在 是 和 与 对 从 向 把 被 给 很 不 也 都 "
    "又 再 还 就 这 那 一 二 三 四 五 六 七 八 九 十 百 千 万 年 月 日 时 分"
).split()
# What a page of the world holds beside plain Latin: other scripts, marks that combine, emoji of one and of several code points.
FOREIGN = (
    "مرحبا بالعالم العقد السعر التاريخ שלום עולם Привет мир договор цена Καλημέρα κόσμε नमस्ते दुनिया "
    "สวัสดีชาวโลก 안녕하세요 세계 こんにちは、世界。 "
    "café naïve e\u0301te\u0301 Å 100 % ± 0.5 °C → ≤ ∑ € 😀 👍🏽 👩‍🚀 🇪🇺 ❤️"
).split()


@functools.cache
def _paragraphs() -> tuple[tuple[str, ...], ...]:
    """English paragraphs, each as its source lines."""
    files = [LICENCES / name for name in ENGLISH]
    if all(file.is_file() for file in files):
        # \x0c ends a page of the GPL; a tab would stand for a different width in every renderer.
        pages = [file.read_text(encoding="utf-8").replace("\x0c", "").expandtabs(4) for file in files]
    else:
        pages = [_made_up(seed) for seed in range(40)]
    blocks = itertools.chain.from_iterable(re.split(r"\n\s*\n", page) for page in pages)
    return tuple(tuple(block.strip("\n").split("\n")) for block in blocks if block.strip())


def _made_up(seed: int) -> str:
    """Several thousand characters in lines of about 70 columns, for a box without Debian's licences."""
    from glyph_rt.export.reader.vocabulary import TRAINING

    rng = random.Random(seed)
    return "\n\n".join("\n".join(" ".join(TRAINING.word(rng) for _ in range(11)) for _ in range(6)) for _ in range(10))


def _fill(pieces: Iterator[str], characters: int) -> str:
    """As many pieces as make `characters` code points, cut to exactly that."""
    out: list[str] = []
    length = 0
    while length < characters:
        out.append(next(pieces))
        length += len(out[-1])
    return "".join(out)[:characters]


def _english(join: Callable[[tuple[str, ...]], str], seed: int) -> Iterator[str]:
    """Paragraphs for ever, from a start that `seed` chooses. Those that come again, here or for another seed, are numbered: no page is
    ever drawn twice, so no cache can help a bench."""
    paragraphs = _paragraphs()
    start = seed * 7919 % len(paragraphs)
    for i in itertools.count():
        turn, lines = 1000 * seed + i // len(paragraphs), paragraphs[(start + i) % len(paragraphs)]
        yield join((f"({turn}) {lines[0]}", *lines[1:]) if turn else lines)


def prose(characters: int, seed: int = 0) -> str:
    """Paragraphs of one line each, a blank line between them."""
    return _fill(_english(lambda lines: " ".join(" ".join(lines).split()) + "\n\n", seed), characters)


def hard_wrapped(characters: int, seed: int = 0) -> str:
    """Lines of about 75 columns with their indents, as people keep text files."""
    return _fill(_english(lambda lines: "\n".join(lines) + "\n\n", seed), characters)


def one_line(characters: int, seed: int = 0) -> str:
    """No line break at all."""
    return _fill(_english(lambda lines: " ".join(" ".join(lines).split()) + " ", seed), characters)


def chinese(characters: int, seed: int = 0) -> str:
    """Chinese sentences with full-width punctuation, in paragraphs of one line."""
    rng = random.Random(seed)

    def sentences() -> Iterator[str]:
        while True:
            for _ in range(rng.randint(2, 9)):
                clauses = ["".join(rng.choices(CHINESE, k=rng.randint(3, 9))) for _ in range(rng.randint(1, 4))]
                yield rng.choice(("，", "，", "、", "：")).join(clauses) + rng.choice("。。。？！；")
            yield "\n"

    return _fill(sentences(), characters)


def mixed(characters: int, seed: int = 0) -> str:
    """Lines of English with Chinese, Arabic, Hebrew, Indic, Thai, Korean and emoji among the words."""
    rng = random.Random(seed)
    english = _english(" ".join, seed)

    def lines() -> Iterator[str]:
        while True:
            words = next(english).split()
            for start in range(0, len(words), 12):
                line = words[start : start + 12]
                line.insert(rng.randint(0, len(line)), rng.choice(FOREIGN))
                line.insert(rng.randint(0, len(line)), "".join(rng.choices(CHINESE, k=4)))
                yield " ".join(line) + "\n"

    return _fill(lines(), characters)


KINDS: dict[str, Callable[[int, int], str]] = {
    "prose": prose,
    "hard-wrapped": hard_wrapped,
    "one-line": one_line,
    "chinese": chinese,
    "mixed": mixed,
}
