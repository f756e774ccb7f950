"""Text of others made fit for a terminal, a picture and a line: servers, proxies and files may say anything.

An escape sequence in an error message must not move the cursor, a character that changes the direction of
writing must not turn a line around, and what nobody can see must not make two names look the same.
"""

import re
from typing import Final

# Control characters; what Unicode calls default ignorable (DerivedCoreProperties.txt) or bidirectional
# formatting (UAX #9); line and paragraph separators; blanks that are letters; surrogates and noncharacters.
HIDDEN: Final = (
    r"\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e"
    r"\u2060-\u206f\u2800\u3164\ud800-\udfff\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\ufffe\uffff"
    r"\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
_HIDDEN_RUN: Final = re.compile(f"[{HIDDEN}]+")


def clean(text: str, most: int | None = None) -> str:
    """`text` on one line, with a space for each run of characters that show nothing or steer a terminal.

    Args:
        most: characters at most; what is longer ends in an ellipsis.
    """
    line = " ".join(_HIDDEN_RUN.sub(" ", text).split())
    return line if most is None or len(line) <= most else f"{line[: most - 1]}…"
