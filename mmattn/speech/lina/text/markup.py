"""The words of a text that was written for a screen: HTML tags and entities, and the signs of Markdown, are not read.

Only what is certain to be markup goes: "a < b", "5 * 3" and "#1" stay.
"""

from __future__ import annotations

import html
import re

__all__ = ["without_markup"]

_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z]{2,31});")
# Names of elements, so that "<john@example.com>" and "x <y and z> 3" are none.
_ELEMENTS = (
    "a|abbr|article|b|blockquote|body|br|button|center|cite|code|dd|del|details|div|dl|dt|em|figcaption|figure|font|"
    "footer|form|h[1-6]|head|header|hr|html|i|img|input|ins|kbd|label|li|link|main|mark|meta|nav|ol|option|p|pre|q|s|"
    "samp|section|select|small|span|strike|strong|sub|summary|sup|svg|table|tbody|td|textarea|tfoot|th|thead|time|"
    "title|tr|tt|u|ul|video|wbr"
)
_RULES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"<!--.{0,2000}?-->", re.S), " "),
    (re.compile(r"<(script|style)\b[^<>]{0,500}>.{0,20000}?</\1\s{0,9}>", re.S | re.I), " "),
    # A new line, item or paragraph is heard as a pause; a word that is bold goes on.
    (re.compile(r"</?(?:br|p|div|li|tr|h[1-6])\b[^<>]{0,500}>", re.I), "\n"),
    (re.compile(rf"</?(?:{_ELEMENTS})(?:\s[^<>]{{0,500}})?/?>", re.I), ""),
    (re.compile(r"^[ \t]{0,3}(?:```|~~~).{0,80}$", re.M), ""),
    (re.compile(r"^[ \t]{0,3}#{1,6}[ \t]+(?=\S)", re.M), ""),
    (re.compile(r"^[ \t]{0,3}>[ \t]+(?=[^\W\d])", re.M), ""),
    (re.compile(r"!?\[([^\[\]\n]{1,500})\]\((?:[^()\s]{0,500}|<[^<>\n]{0,500}>)(?: \"[^\"\n]{0,200}\")?\)"), r"\1"),
    (re.compile(r"~~(?=\S)([^~\n]{1,500})(?<=\S)~~"), r"\1"),
    (re.compile(r"(?<![\w*])(\*{1,3})(?=\S)([^*\n]{1,500})(?<=\S)\1(?![\w*])"), r"\2"),
    (re.compile(r"(?<!\w)(__?)(?=\S)([^_\n]{1,500})(?<=\S)\1(?!\w)"), r"\2"),
    (re.compile(r"(?<!\w)(`{1,2})(?=\S)([^`\n]{1,500})(?<=\S)\1(?!\w)"), r"\2"),
)


def without_markup(text: str) -> str:
    r"""Returns the text without tags, entities and Markdown; time is linear in its length.

    >>> without_markup("# News\n<b>Fish</b> &amp; [chips](https://example.com), ~~old~~ **new**")
    'News\nFish & chips, old new'
    """
    for pattern, kept in _RULES:
        text = pattern.sub(kept, text)
    return _ENTITY.sub(lambda match: html.unescape(match[0]), text)
