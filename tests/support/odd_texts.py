"""Texts on which tokenizers that look alike differ."""

import itertools

_ODD = [
    "",
    " ",
    "\t\n",
    "film",
    "  don't   STOP\tnow\r\n",
    "Café, naïve façade — “quoted” … 3.14%",
    "Cafe\u0301 nai\u0308ve",
    "ÉCOLE école İstanbul ıssız straße ﬁlm",
    "中文电影 很好 film 日本語 カタカナ 한국어",
    "a\u00adb\u200bc\u200d\ufeff \ufffd \x00 \x07 \u2028 end \x85 x",
    "``both'' quotes ‘and’ “more”",
    "x" * 120,
    "supercalifragilistic" * 8,
    "the film [SEP] was [CLS] good [MASK] [PAD] [UNK]",
    "the film</s>was<s>good<mask> <pad><unk>",
    "[sep] [mask] <MASK> [ SEP ] [SEP",
    "[E1] anna [/E1] met [E2] ben [/E2]",
    "<e1>anna</e1> met<e2>ben</e2>",
    "@user @USER http://t.co #film :-) ;D <3",
    "\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467 ok \U0001d4d7",
    "1,000.50 $5 50% 2026-11-28 12:30",
    "un##aff ## ##able a## #",
    "the film was not good " * 30,
    "مرحبا بالعالم שלום עולם Привет мир",
    "हिन्दी ไทย ελληνικά",
    "(a)[b]{c}<d>/e\\f|g_h-i+j=k~l^m`n",
    "ｆｕｌｌ　ｗｉｄｔｈ ① ² ½ ™",
    "new\nline\u00a0space\u3000wide",
]
_MARKS = ["", "[SEP]", " [E1] ", "</s>", "É", "中", "…"]

TEXTS = [text + mark + "the film" for text, mark in itertools.product(_ODD, _MARKS)] + _ODD
"""More than 200 texts."""
PAIRS = [(text, TEXTS[(7 * index) % len(TEXTS)]) for index, text in enumerate(TEXTS)]
"""As many pairs, in which either text may be the longer one."""
