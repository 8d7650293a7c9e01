"""What codes mean: reasons that are no rule of the recipe, and language labels."""

__all__ = ["language_labels", "language_name", "meaning"]

MEANINGS = {
    "read.type": "a record without a page of its own: revisit, resource, unknown",
    "read.status": "the server did not answer 200",
    "read.redirect": "the server sent the crawler elsewhere",
    "read.mime": "no page: a type that the recipe does not read",
    "read.damaged": "bytes that are not a record, or an incomplete record",
    "read.too_long": "longer than read.max_record_bytes",
    "read.decoded_too_long": "longer than read.max_decoded_bytes when unpacked",
    "read.ratio": "packed more tightly than read.max_ratio",
    "read.bad_chunk": "the chunks of the body do not add up",
    "read.bad_encoding": "the body cannot be unpacked",
    "read.bad_http": "no HTTP answer in the record",
    "read.no_text": "no text field",
    "extract.empty": "no text in the page",
    "extract.too_slow": "took longer than extract.max_cpu_seconds",
    "extract.out_of_memory": "took more than extract.max_memory_bytes",
    "extract.crashed": "ended the extractor",
    "exact.same_record": "the same record once more, with the same text",
    "exact.duplicate": "the same text as a document that is kept",
    "near.duplicate": "nearly the same text as a document that is kept",
    "split.conflict": "joins documents of the training and of the validation split",
    "edits.empty": "nothing is left when its edits are made",
    "removed": "on the list of removed documents, or a duplicate of one",
}

# Of the labels of lid.176 those with the most pages on the web; the others are shown as they are.
# fmt: off
LANGUAGES = {
    "ar": "Arabic", "bg": "Bulgarian", "bn": "Bengali", "ca": "Catalan", "cs": "Czech",
    "da": "Danish", "de": "German", "el": "Greek", "en": "English", "es": "Spanish",
    "et": "Estonian", "fa": "Persian", "fi": "Finnish", "fr": "French", "he": "Hebrew",
    "hi": "Hindi", "hr": "Croatian", "hu": "Hungarian", "id": "Indonesian", "it": "Italian",
    "ja": "Japanese", "ka": "Georgian", "ko": "Korean", "lt": "Lithuanian", "lv": "Latvian",
    "ml": "Malayalam", "mr": "Marathi", "ms": "Malay", "nl": "Dutch", "no": "Norwegian",
    "pl": "Polish", "pt": "Portuguese", "ro": "Romanian", "ru": "Russian", "sk": "Slovak",
    "sl": "Slovenian", "sq": "Albanian", "sr": "Serbian", "sv": "Swedish", "ta": "Tamil",
    "te": "Telugu", "th": "Thai", "tr": "Turkish", "uk": "Ukrainian", "ur": "Urdu",
    "vi": "Vietnamese", "zh": "Chinese",
}
# fmt: on


def language_labels() -> dict[str, str]:
    """Labels by the English names of languages, in lower case."""
    return {name.lower(): label for label, name in LANGUAGES.items()}


def meaning(rule: str) -> str:
    """What a reason means, in words; empty for one that is not known here."""
    if rule.endswith(".failed"):
        return f"the signal group {rule.removesuffix('.failed')} could not measure the text"
    return MEANINGS.get(rule, "")


def language_name(label: str) -> str:
    """English name of a language, empty if it is not known here."""
    return LANGUAGES.get(label, "")
