"""A small English-like language whose entropy is known exactly: texts to train on, minimal pairs to test on."""

from picolm.data.synthetic.language import Language, LanguageSettings, build_language
from picolm.data.synthetic.write import synthesize

__all__ = ["Language", "LanguageSettings", "build_language", "synthesize"]
