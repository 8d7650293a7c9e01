"""From the bytes of a page to its text: every character of what is kept, and nothing that is not shown.

`charset` decides how a page is decoded, with `charset_fit` for whether a declared encoding can be right. `html` drives:
`tokens` of the page, `open_elements`, one `walk` into `blocks` by `block_writer`, with `tables`, `mathematics` and what
is `hidden`; `main_content` chooses blocks, helped by `class_names`. `sandbox` runs all of it in a child process with
limits of CPU time and memory.
Public: `html.Extractor`, `html.extract_version`, `charset.decode_page`, `sandbox.PageChild`.
"""
