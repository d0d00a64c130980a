"""The report of a study: a judgement in, one page, its text as Markdown, and figures out. Nothing is judged here."""
