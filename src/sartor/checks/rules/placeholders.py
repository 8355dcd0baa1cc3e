"""Placeholders that were never filled in: `{{name}}`, `${name}`, `[Your Name]`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import ClassVar

from sartor.base.reasons import Reason
from sartor.checks.finding import Finding
from sartor.checks.lint_input import LintInput
from sartor.checks.rules import Rule
from sartor.checks.rules.residue import ABOUT_CODE

PLACEHOLDER = re.compile(
    r"\{\{\s*[^\W\d][\w .\-]{0,40}\}\}|\$\{[^\W\d]\w{0,40}\}|<<[^\W\d][\w ]{0,40}>>"
    r"|\[(?i:(?:your|insert|company|customer|user|product) ?(?:\w+ ?){0,2}|name|date|address|phone)\]"
    r"|[\[【](?:请?(?:填写|填入|输入|插入)[^\]】]{0,12}|(?:您的|你的)?(?:姓名|名字|公司名?称?|电话|地址|日期))[\]】]"
)
ABOUT_TEMPLATES = re.compile(r"jinja|mustache|handlebars|template|placeholder|vue|模板|占位符", re.IGNORECASE)
"""In a row about templates or code, placeholders are meant."""


class Placeholders(Rule):
    """Templates whose blanks the model would learn to write."""

    name = "placeholders"
    reasons: ClassVar[Mapping[str, Reason]] = {
        "placeholder": Reason(
            "The text contains a placeholder that was not filled in: {found}",
            "Replace it with what it stands for, or the model will write it.",
        ),
    }

    def find(self, lint_input: LintInput) -> Iterator[Finding]:
        """A warning for each text with one."""
        for row in lint_input.rows:
            for name, text in row.parts:
                found = PLACEHOLDER.search(text)
                if found and not ABOUT_CODE.search(row.text) and not ABOUT_TEMPLATES.search(row.text):
                    yield Finding("placeholder", "warning", row.origin, name, {"found": found[0][:40]})


PLUGIN = Placeholders()
EXAMPLES = (
    ((("Who are you?", "I am {{name}}, made by {{author}}."), ("你是谁？", "我是{{ 名字 }}。")), ("placeholder",) * 2),
    ((("Letter?", "Dear [Your Name],"), ("信？", "尊敬的【姓名】："), ("Mail?", "Hi ${user}")), ("placeholder",) * 3),
    ((("What does {{x}} do in a Jinja template?", "It prints x."), ("Set?", "{1, 2} and {{1}}"), ("a[i]", "[1]")), ()),
)
"""(question–answer pairs, the codes found in them)."""
