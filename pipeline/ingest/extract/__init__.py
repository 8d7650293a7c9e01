"""From the bytes of a page to its text.

`charset` decides how a page is decoded, with `charset_fit` for whether a declared encoding can be right; `html` turns
the page into text; `sandbox` does so in a child process with limits of CPU time and memory.
Public: `html.Extractor`, `html.extract_version`, `charset.decode_page`.
"""
