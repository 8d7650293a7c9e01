"""Texts as bytes: what compiled code needs to read them, and edits of them.

`utf8` decodes and knows the class of a character, by a table that ships with us; `lines` defines line ends;
`hashing` the hash of a sequence of characters; `word_tokenizer` cuts a text into the tokens that Gopher's rules count,
with `affixes` for what sticks to a word; `damage` finds characters that came out of a wrong decoding; `invisible`
deletes soft hyphens and zero-width characters; `edits` are spans of a text to be replaced, made and applied in batches.
Public: `edits.apply_edits`, `edits.text_buffers`, `utf8.decode`, `utf8.TABLE`.
"""
